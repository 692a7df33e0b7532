# Sourced by `record` and by `tests/vm/run`: Debian's cloud kernel, unmodified, in QEMU's software emulation.
# The kernel is fetched with apt-get and kept in FPUSWITCH_VM_CACHE (by default a folder of ~/.cache), and never installed.
# Who sources it sets `program`, its name in messages, and may set `time_limit_seconds`.

cache=${FPUSWITCH_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fpuswitch-vm}

fail() {
    local status=$1
    shift
    printf '%s: %s\n' "$program" "$*" >&2
    exit "$status"
}

check_packages() {
    local package missing=()
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] || fail 2 "Debian packages are missing: ${missing[*]}"
}

kernel_image() {
    local image
    for image in "$cache"/boot/vmlinuz-*; do
        [[ -e $image ]] && printf '%s\n' "$image" && return
    done
    return 1
}

kernel_package() {
    apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2 }'
}

# The image is moved last: where it is, the rest is whole.
fetch_kernel() {
    local package unpacked
    package=$(kernel_package)
    [[ -n $package ]] || fail 1 'apt knows no linux-image-cloud-amd64: try apt-get update'
    unpacked=$(mktemp -d "$cache/unpacking.XXXXXX")
    (cd "$unpacked" && apt-get download "$package" && dpkg-deb -x ./*.deb tree) >&2
    find "$unpacked/tree" -type d -path '*lib/modules' -exec mkdir "$cache/lib" \; -exec mv {} "$cache/lib/" \; -prune
    mv "$unpacked/tree/boot" "$cache/boot"
    rm -rf "$unpacked"
}

provide_kernel() {
    mkdir -p "$cache"
    (
        flock 9
        if ! kernel_image >/dev/null; then
            fetch_kernel
        fi
    ) 9>"$cache/lock"
}

# Makes a file system of a root directory that has `init`: with busybox, and the places where the kernel's are mounted.
make_initramfs() {
    local root=$1 image=$2 applet
    mkdir -p "$root"/{bin,dev,proc,sys,tmp}
    cp "$(command -v busybox)" "$root/bin/busybox"
    busybox --list | while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$image"
}

# emulate MODEL CPUS INITRAMFS OUT OPTION...: boots, and writes what the guest sends over its second serial port to OUT,
# what it prints to OUT.console, and what QEMU says to OUT.qemu. The guest panics, and so ends, when the emulation hangs,
# as it rarely does on a busy host: not only at `time_limit_seconds`.
emulate() {
    local model=$1 cpus=$2 initramfs=$3 out=$4
    shift 4
    timeout "${time_limit_seconds:-900}" qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu "$model" -smp "$cpus" -m 1500 \
        -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$(kernel_image)" -initrd "$initramfs" \
        -append "console=ttyS0 quiet panic=-1 softlockup_panic=1 $*" \
        -chardev "file,id=console,path=$out.console" -serial chardev:console \
        -chardev "file,id=sent,path=$out" -serial chardev:sent \
        >"$out.qemu" 2>&1 </dev/null || printf '%s: QEMU ended with status %d\n' "$program" $? >&2
    [[ -s $out ]] || {
        tail -n 20 "$out.qemu" "$out.console" >&2
        return 1
    }
}
