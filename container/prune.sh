#!/bin/sh
# Removes from a virtual environment what a service never loads: half of what some wheels hold. What stays is imported
# while the image is built, and the container's tests ask it each kind of request.
set -eu
cd "$(echo "$1"/lib/python3*/site-packages)"

# Arrow: only IPC streams are read and written. Not Flight, ORC or cloud file systems; the Python module is linked with
# the other libraries.
cd pyarrow
rm -rf include src tests includes parquet interchange
rm -f libarrow_flight* libarrow_python_flight* libarrow_python_parquet* \
    _flight* _parquet* _dataset* _substrait* _acero* _azurefs* _gcsfs* _s3fs* _hdfs* _orc* _feather* _pyarrow_cpp_tests*
# The wheel has each library under three names.
for library in libarrow_python.so libarrow_python.so.*00; do
    ln -sf "$(ls libarrow_python.so.*.*.*)" "$library"
done
cd ..

# Colours for source code in terminals.
find pygments/lexers pygments/styles -name '[a-z]*.py' -delete

# ONNX Runtime: its Python module has the library inside; the other copy is for C programs.
rm -f onnxruntime/capi/libonnxruntime.so*
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets

# AWS: of some 400 services, S3 and those that log in to it. 26 MB.
if [ -d botocore/data ]; then
    find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin \
        -exec rm -rf {} +
fi

# Tests, sources and headers of everybody.
find . -depth -type d \( -name tests -o -name test \) ! -path './mlflow/*' -exec rm -rf {} +
find . -type f \( -name conftest.py -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.c' -o -name '*.h' -o -name '*.hpp' \
    -o -name '*.pyi' -o -name '*.a' \) -delete
rm -rf "$1/include" "$1/share"

# Debuggers' symbols, 40 MB. Not of the libraries in *.libs: their parts were moved as the wheel was made, and strip
# breaks them.
find . -type f -name '*.so*' ! -path './*.libs/*' -exec strip --strip-unneeded {} +
