#!/bin/sh
# Removes installers, compilers and documentation from the image. Keeps the list of Debian's packages for scanners.
set -eu
cd /usr
rm -rf share/doc share/man share/info share/locale share/perl* share/bash-completion share/python-wheels src games include \
    lib/apt lib/dpkg lib/systemd lib/udev lib/valgrind lib/python3/dist-packages \
    lib/*-linux-gnu/perl* lib/*-linux-gnu/libperl* lib/*-linux-gnu/gconv lib/*-linux-gnu/libapt* \
    lib/*-linux-gnu/gprofng lib/*-linux-gnu/ldscripts lib/*-linux-gnu/libbfd* lib/*-linux-gnu/libopcodes* \
    lib/*-linux-gnu/libctf* lib/*-linux-gnu/libsframe* lib/*-linux-gnu/libgprofng* \
    bin/apt* bin/dpkg* bin/perl* bin/*-linux-gnu-* bin/gpgv bin/openssl bin/localedef bin/pip* local/bin/pip* bin/ls[a-z]* bin/*passwd bin/chage bin/lastlog bin/faillog \
    sbin/*e2* sbin/debugfs sbin/fsck* sbin/mk* sbin/tune2fs sbin/user* sbin/group*
# Libraries of the programs removed above.
cd /usr/lib/*-linux-gnu
rm -f libgnutls.* libp11-kit.* libunistring.* libidn2.* libhogweed.* libnettle.* libgcrypt.* libgpg-error.* libdb-5* \
    libsepol.* libsemanage.* libsystemd.* libext2fs.* libxxhash.*
cd /usr
rm -rf /var/lib/apt /var/cache /var/log/* /root/.cache
for folder in lib/python3.* local/lib/python3.*; do
    rm -rf "$folder/test" "$folder/idlelib" "$folder/lib2to3" "$folder/ensurepip" "$folder/tkinter" \
        "$folder/turtledemo" "$folder/pydoc_data" "$folder/dist-packages" "$folder/site-packages"
done
# No setuid or setgid programs.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
