#!/bin/sh
# Removes files that a service never loads from a virtual environment: half of some wheels. The image's build imports the
# rest, and the container's tests send it every kind of request.
set -eu
cd "$(echo "$1"/lib/python3*/site-packages)"

# Arrow: the service reads and writes IPC streams and Parquet files. Removes Flight, ORC and cloud file systems; the Python
# modules link to the other libraries.
cd pyarrow
rm -rf include src tests includes interchange
rm -f libarrow_flight* libarrow_python_flight* libarrow_python_parquet_encryption* \
    _flight* _parquet_encryption* _dataset* _substrait* _acero* _azurefs* _gcsfs* _s3fs* _hdfs* _orc* _feather* _pyarrow_cpp_tests*
# The wheel contains each library under three names.
for library in libarrow_python.so libarrow_python.so.*00; do
    ln -sf "$(ls libarrow_python.so.*.*.*)" "$library"
done
cd ..

# Syntax highlighting in terminals.
find pygments/lexers pygments/styles -name '[a-z]*.py' -delete

# ONNX Runtime: its Python module contains the library; the other copy is for C programs.
rm -f onnxruntime/capi/libonnxruntime.so*
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets

# AWS: of about 400 services, keep S3 and those for its login. Saves 26 MB.
if [ -d botocore/data ]; then
    find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin \
        -exec rm -rf {} +
fi

# Tests, sources and headers of all packages.
find . -depth -type d \( -name tests -o -name test \) ! -path './mlflow/*' -exec rm -rf {} +
find . -type f \( -name conftest.py -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.c' -o -name '*.h' -o -name '*.hpp' \
    -o -name '*.pyi' -o -name '*.a' \) -delete
rm -rf "$1/include" "$1/share"

# Debug symbols, 40 MB. Skips the libraries in *.libs: building the wheel moved their sections, and strip breaks them.
find . -type f -name '*.so*' ! -path './*.libs/*' -exec strip --strip-unneeded {} +
