#!/usr/bin/env bash
# One door to everything: each command installs what it needs by itself and may be repeated.
#
#   ./do build --node fenn     build a node's image (any gt-image command works: ./do plan --all)
#   ./do test                  run every check: format, lints, unit, property and end-to-end tests
#   ./do together              boot the edge from its card, with the program of this repository for arm64, and see that
#                              it serves
#   ./do deb [amd64|arm64]     make a Debian package: target/deb/gt-image_VERSION_ARCH.deb
#   ./do docs                  build the pages of docs/ as a site with a search: target/site/index.html
#   ./do bench [NAME]          run the benchmarks beside their peers
#   ./do fuzz [TARGET] [SECONDS]  run the parsers under libFuzzer, 60 s each
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

# install PACKAGE...: from the distribution's own archive, only what is missing.
install() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { say "error: not root, and sudo is not installed"; say "hint: as root, run \`apt-get install ${missing[*]}\`"; exit 1; }
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2
}

# What building needs: a C compiler for two libraries, the emulator for package scripts, id maps
# for builds without root, apt's signature check and keyring.
needs_build=(gcc libc6-dev make pkg-config ca-certificates qemu-user-static uidmap gpgv debian-archive-keyring openssl xz-utils python3-pip)
# What judging needs: other people's tools.
needs_test=(e2fsprogs dosfstools mtools gdisk fdisk bmap-tools qemu-system-arm apt-utils gnupg
    dpkg-dev openssh-client kmod cpio libarchive-tools attr acl shellcheck python3-venv python3-fusepy zip
    lintian binutils git iproute2 nftables dnsmasq-base busybox klibc-utils libnfs-utils nfs-common tftp-hpa atftp curl libcap2-bin age systemd)
# What fuzzing needs: libFuzzer's runtime is C++, and seeds are made by the tools whose formats they have.
needs_fuzz=(g++ binutils dpkg-dev gzip xz-utils zstd e2fsprogs dosfstools mtools fdisk)
# What packaging needs, and for another architecture a linker and a C library for it.
needs_deb=(gcc binutils libc6-dev make dpkg-dev xz-utils git python3 debian-archive-keyring gpgv)
needs_bench=(mmdebstrap arch-test genimage hyperfine time nfs-ganesha nfs-ganesha-vfs)

[ "$(uname -m)" = aarch64 ] && needs_build=("${needs_build[@]/qemu-user-static/}")

# Tools from crates, in a folder of their own, where no other project's version is in the way.
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools

# Unoptimised and without the server: 70 s of processor time once, and a site takes a second all the same.
install_mdbook() {
    [ -x "$tools/bin/mdbook" ] && return
    say "compiling mdbook"
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$tools" mdbook --version 0.5.4 \
        --no-default-features --features search
}

command -v cargo >/dev/null || { say "error: cargo is not installed"; say "hint: see https://rustup.rs"; exit 1; }

case "${1:-}" in
test)
    shift
    install "${needs_build[@]}" "${needs_test[@]}"
    install_mdbook
    PATH=$tools/bin:$PATH exec tests/run "$@"
    ;;
docs)
    install gcc libc6-dev
    install_mdbook
    "$tools/bin/mdbook" build docs
    say "the site is target/site/index.html"
    ;;
deb)
    arch=${2:-$(dpkg --print-architecture)}
    if [ "$arch" != "$(dpkg --print-architecture)" ]; then
        case $arch in amd64) gnu=x86-64-linux-gnu ;; *) gnu=aarch64-linux-gnu ;; esac
        needs_deb+=("gcc-$gnu" "libc6-dev-$arch-cross" qemu-user-static)
    fi
    case $arch in amd64 | arm64) install "${needs_deb[@]}" ;; esac
    exec dist/deb "$arch"
    ;;
together)
    ./do deb arm64
    install "${needs_build[@]}" "${needs_test[@]}"
    export GT_IMAGE_TOGETHER=1 GT_IMAGE_REQUIRE=judge,root,qemu,archive
    exec cargo test --locked -p gt-image --test e2e -- edge::
    ;;
bench)
    shift
    install "${needs_build[@]}" "${needs_test[@]}" "${needs_bench[@]}"
    # All of one package or the one named: `ext4`, `peers`, `tftp`, `nfs`.
    if [ $# -gt 0 ]; then exec cargo bench --workspace --bench "$@"; fi
    exec cargo bench --workspace --benches
    ;;
fuzz)
    shift
    install "${needs_build[@]}" "${needs_fuzz[@]}"
    [ -x "$tools/bin/cargo-fuzz" ] || cargo install --quiet --locked --root "$tools" cargo-fuzz --version 0.13.2
    PATH=$tools/bin:$PATH exec tests/fuzz "$@"
    ;;
'' | -h | --help)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    ;;
*)
    install "${needs_build[@]}"
    # The development profile: its own optimisation is enough, for most of a build is spent in package
    # scripts, and the tests use the same artefacts. A cold release build takes minutes longer.
    cargo build --locked -p gt-image
    exec "${CARGO_TARGET_DIR:-target}/debug/gt-image" "$@"
    ;;
esac
