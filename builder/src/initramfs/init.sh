#!/bin/sh
# shellcheck shell=dash
#
# /init of every node of gt-image: finds the root, puts it together, and starts the system in it.
# It knows no node: all that differs between nodes comes from the kernel's command line.
#
#   root=PARTUUID=... | LABEL=... | UUID=... | /dev/...    the partition of the root
#   rootfstype=ext4, rootflags=..., ro                     how the root is mounted
#   gt.root=disk | disk-ephemeral | nfs | ram              where the root is and what is done with it; default:
#                                                          disk. For nfs and ram see netboot.sh
#   gt.overlay_size=50%, gt.scratch_size=50%               most memory for changes, and for scratch
#   gt.timeout=30                                          seconds to wait for a device
#   gt.partitions=gt-state,gt-scratch                      what a netbooted node has by its description and is
#                                                          waited for; others are used if they are there
#   gt.debug                                               a shell on failure, in place of a reboot
#   init=/sbin/init                                        what is started
#
# Rules: one line `gt: <step>` per step; every wait has a deadline; a failure says why, waits ten
# seconds and reboots, because nobody sits at a node. In the running system, /run/gt has `rw` (the
# changes to a root that forgets them), `lower` (what is below, if it is a disk), `state` and `scratch`
# (their partitions).

export PATH=/bin
root=/root
run=/run/gt

# --- Saying things -------------------------------------------------------------------------------

# log LEVEL TEXT: to the kernel's log, which every console shows down to its level, and to the first
# console if the level hides it (`quiet`).
log() {
    echo "<$1>gt: $2" >/dev/kmsg
    read -r shown _ </proc/sys/kernel/printk
    [ "$1" -lt "${shown:-0}" ] || echo "gt: $2" >/dev/console
}

say() { log 6 "$*"; }
warn() { log 3 "warning: $*"; }

# Who boots from a server tells it each step: netboot.sh. `told` waits until it has been said.
tell() { :; }
told() { :; }

die() {
    trap - EXIT
    log 3 "cannot boot: $*"
    tell failed "$*"
    if [ -n "$debug" ]; then
        log 3 "gt.debug: a shell on the console; leave it to reboot"
        setsid cttyhack sh </dev/console >/dev/console 2>&1
    else
        log 3 "rebooting in 10 seconds"
        sleep 10
    fi
    # A Raspberry Pi restarts by its watchdog; Debian's kernel has that as a module.
    modprobe -q bcm2835_wdt
    sync
    reboot -f
    # Not reached, unless the kernel cannot restart this machine.
    while :; do sleep 60; done
}

# --- Devices -------------------------------------------------------------------------------------

seconds() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# Loads the modules of all hardware that showed up since the last call. By the lists of the buses: a walk
# through /sys/devices passes thousands of directories for the same names, 1.3 s under emulation.
coldplug() {
    aliases="$(cat /sys/bus/*/devices/*/modalias 2>/dev/null | sort -u)"
    [ "$aliases" != "$plugged" ] || return 0
    plugged="$aliases"
    # Aliases may hold `*`, which must not become names of files here.
    set -f
    # shellcheck disable=SC2086  # one alias is one word
    modprobe -abq $aliases 2>/dev/null
    set +f
}

# wait_for WHAT COMMAND...: repeats COMMAND until it succeeds or the deadline has passed.
wait_for() {
    what="$1"
    shift
    end=$(($(seconds) + timeout))
    said=
    until "$@"; do
        [ "$(seconds)" -lt "$end" ] || return 1
        [ -n "$said" ] || say "waiting for $what, $timeout seconds at most"
        said=1
        sleep 0.2
        coldplug
    done
}

# hex DISK OFFSET LENGTH: bytes of a disk as hex digits.
hex() { xxd -p -s "$2" -l "$3" "/dev/$1" 2>/dev/null | tr -d '\n'; }

# little DIGITS: a little-endian number with its most significant digits first.
little() {
    rest="$1"
    number=
    while [ -n "$rest" ]; do
        more="${rest#??}"
        number="${rest%"$more"}$number"
        rest="$more"
    done
    echo "$number"
}

# partuuid PARTITION: as the kernel says it, else from the partition table: Debian's 6.12 has no
# PARTUUID in uevent, later kernels have.
partuuid() {
    uuid="$(sed -n 's/^PARTUUID=//p' "/sys/class/block/$1/uevent")"
    if [ -z "$uuid" ]; then
        disk="$(readlink -f "/sys/class/block/$1")"
        disk="${disk%/*}"
        uuid="$(table_uuid "${disk##*/}" "$(cat "/sys/class/block/$1/partition")")"
    fi
    echo "$uuid"
}

# table_uuid DISK NUMBER: GPT has its header in the second sector (UEFI 2.10, section 5.3), an MBR
# its disk id at byte 440.
table_uuid() {
    sector="$(cat "/sys/class/block/$1/queue/logical_block_size")"
    if [ "$(hex "$1" "$sector" 8)" = 4546492050415254 ]; then
        entries=$((0x$(little "$(hex "$1" $((sector + 72)) 8)") * sector))
        size=$((0x$(little "$(hex "$1" $((sector + 84)) 4)")))
        guid="$(hex "$1" $((entries + ($2 - 1) * size + 16)) 16)"
        # The first three fields are little-endian, the others are as they stand.
        # shellcheck disable=SC2046  # five words are wanted
        set -- $(echo "$guid" | sed 's/^\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)/\1 \2 \3 \4 /')
        echo "$(little "$1")-$(little "$2")-$(little "$3")-$4-$5"
    elif [ "$(hex "$1" 510 2)" = 55aa ]; then
        printf '%s-%02x\n' "$(little "$(hex "$1" 440 4)")" "$2"
    fi
}

# find_root: sets `device` to the partition that root= names.
find_root() {
    device=
    case "$root_is" in
    PARTUUID=*)
        want="$(echo "${root_is#PARTUUID=}" | tr A-F a-f)"
        for part in /sys/class/block/*/partition; do
            part="${part%/partition}"
            part="${part##*/}"
            if [ -b "/dev/$part" ] && [ "$(partuuid "$part")" = "$want" ]; then
                device="/dev/$part"
                return 0
            fi
        done
        return 1
        ;;
    LABEL=* | UUID=*) device="$(findfs "$root_is" 2>/dev/null)" ;;
    *) device="$root_is" ;;
    esac
    [ -b "$device" ]
}

# find_label NAME: sets `device` to the partition of this name in the GPT, on the root's own disk
# first, or else to the filesystem with this label.
find_label() {
    for part in "/sys/class/block/$own_disk"/*/partition /sys/class/block/*/partition; do
        part="${part%/partition}"
        grep -qx "PARTNAME=$1" "$part/uevent" 2>/dev/null || continue
        device="/dev/${part##*/}"
        return 0
    done
    device="$(findfs "LABEL=$1" 2>/dev/null)"
    [ -b "$device" ]
}

# find_label_late NAME: a disk may be slower than the network that brought the root. A partition that
# the node has by its description is waited for as long as a card or a stick takes to show up: 6 s on a
# Pi 4, 12 at most.
find_label_late() {
    until find_label "$1"; do
        case ",$partitions," in *",$1,"*) [ "$(seconds)" -lt 12 ] || return 1 ;; *) return 1 ;; esac
        sleep 0.5
        coldplug
    done
}

# --- The root ------------------------------------------------------------------------------------

# mount_partition PLACE OPTIONS: waits for the root's partition and mounts it.
mount_partition() {
    [ -n "$root_is" ] || die "the kernel's command line has no root="
    wait_for "$root_is" find_root || die "no partition is $root_is; found: $(partitions)"
    own_disk="$(readlink -f "/sys/class/block/${device##*/}")"
    own_disk="${own_disk%/*}"
    own_disk="${own_disk##*/}"
    say "mounting $device ($root_is) as $2"
    modprobe -q "$fstype"
    mkdir -p "$1"
    mount -t "$fstype" -o "$2${flags:+,$flags}" "$device" "$1" ||
        die "$device cannot be mounted as $fstype, see the kernel's lines above"
}

partitions() {
    for part in /sys/class/block/*/partition; do
        part="${part%/partition}"
        part="${part##*/}"
        [ -b "/dev/$part" ] && echo "$part=$(partuuid "$part")"
    done | tr '\n' ' '
}

# The root is the partition; changes stay.
root_disk() { mount_partition "$root" "$access,noatime"; }

# The root is the partition below memory; every boot starts from the same bytes.
root_disk_ephemeral() {
    mount_partition "$run/lower" ro,noatime
    overlay_over_lower
}

# Puts a limited tmpfs over $run/lower, wherever that came from, and over what is `above` that.
overlay_over_lower() {
    modprobe -q overlay
    mkdir -p "$run/rw"
    mount -t tmpfs -o "mode=0755,size=$overlay_size" gt-rw "$run/rw" ||
        die "no memory of size $overlay_size for changes (gt.overlay_size)"
    mkdir "$run/rw/upper" "$run/rw/work"
    # The root of the whole is the upper one, so it must look like the lower one.
    chmod "$(stat -c %a "$run/lower")" "$run/rw/upper"
    chown "$(stat -c %u:%g "$run/lower")" "$run/rw/upper"
    say "changes are kept in memory, $overlay_size at most, until the next boot"
    mount -t overlay -o "lowerdir=${above:+$above:}$run/lower,upperdir=$run/rw/upper,workdir=$run/rw/work" \
        gt-root "$root" || die "overlayfs cannot be mounted"
}

# --- State that outlives a boot, and scratch space that must not -----------------------------------

# inside PATH: true if it is absolute and neither it nor a directory above it is a symbolic link in
# the root. A link could lead out of the root: here it would be followed from the initramfs.
inside() {
    case "$1" in
    /*/../* | */.. | [!/]*) return 1 ;;
    esac
    way="$1"
    while [ -n "$way" ]; do
        [ ! -L "$root$way" ] || return 1
        way="${way%/*}"
    done
}

# each_path LIST COMMAND: calls COMMAND with mode, user, group and path of every line.
each_path() {
    while read -r mode uid gid path; do
        case "$mode" in '' | '#'*) continue ;; esac
        inside "$path" || {
            warn "$1: $path is no plain directory of the root, left as it is"
            continue
        }
        "$2" || warn "$path: cannot be put in place, left as it is"
    done <"$root/etc/gt/$1"
}

persist() {
    [ -s "$root/etc/gt/persist" ] || return 0
    mkdir -p "$run/state"
    if ! find_label_late gt-state; then
        [ "$mode_is" = disk ] || volatile "there is no partition gt-state"
    elif ! mount -t ext4 -o noatime "$device" "$run/state"; then
        volatile "$device (gt-state) cannot be mounted"
    else
        say "state is on $device"
        wipe_state
        each_path persist keep
    fi
}

# The owner asked for it (`gt-image reset --state`). The number of the wish stays on the partition: it
# is granted once, however often it is told. The node's key is not state: without it, it gets no secrets.
wipe_state() {
    wish="$(cat "$run/secrets/wipe-state" 2>/dev/null)"
    [ -n "$wish" ] && [ "$wish" != "$(cat "$run/state/.wiped" 2>/dev/null)" ] || return 0
    warn "wiping the state on $device, as asked for"
    find "$run/state" -mindepth 1 -maxdepth 1 ! -name node.age -exec rm -rf {} +
    echo "$wish" >"$run/state/.wiped"
}

# The system starts all the same: a node that can be reached can be mended.
volatile() {
    warn "$1: state will be lost at the next boot"
    echo "$1" >"$run/volatile"
}

# Puts a directory of gt-state over `path`. The first time it is filled with what the root has
# there; the rename at the end makes a power cut repeat that.
keep() {
    kept="$run/state/persist$path"
    if [ ! -d "$kept" ]; then
        say "state of $path begins with the root's own"
        new="$run/state/.new"
        rm -rf "$new"
        mkdir -p "$new" "${kept%/*}" || return 1
        if [ -d "$root$path" ]; then
            cp -a "$root$path/." "$new/" || return 1
        fi
        chmod "$mode" "$new" && chown "$uid:$gid" "$new" && sync && mv "$new" "$kept" || return 1
    fi
    mkdir -p "$root$path" && mount --bind "$kept" "$root$path"
}

scratch() {
    # On a disk that keeps changes, scratch paths are ordinary directories.
    [ "$mode_is" != disk ] && [ -s "$root/etc/gt/scratch" ] || return 0
    mkdir -p "$run/scratch"
    if find_label_late gt-scratch && scratch_partition; then
        say "scratch space is on $device, emptied"
    else
        say "scratch space is memory, $scratch_size at most"
        mount -t tmpfs -o "mode=0755,size=$scratch_size" gt-scratch "$run/scratch" ||
            die "no memory of size $scratch_size for scratch space (gt.scratch_size)"
    fi
    each_path scratch fresh
}

# Empties the partition, or makes its filesystem anew when it has none that can be mounted.
scratch_partition() {
    mount -t ext4 -o noatime "$device" "$run/scratch" 2>/dev/null || {
        say "making a filesystem on $device for scratch space"
        mke2fs -F -L gt-scratch "$device" >/dev/null 2>&1
        mount -t ext4 -o noatime "$device" "$run/scratch" || return 1
    }
    find "$run/scratch" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
}

# Puts an empty directory of the scratch space over `path`.
fresh() {
    mkdir -p "$run/scratch$path" "$root$path" &&
        chmod "$mode" "$run/scratch$path" &&
        chown "$uid:$gid" "$run/scratch$path" &&
        mount --bind "$run/scratch$path" "$root$path"
}

# --- The way through -----------------------------------------------------------------------------

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev
mount -t tmpfs -o nosuid,nodev,mode=0755,size=20% tmpfs /run
mkdir -p "$run" "$root"

# The kernel drops lines of /dev/kmsg beyond ten in five seconds unless told otherwise.
ratelimit="$(cat /proc/sys/kernel/printk_devkmsg)"
echo on >/proc/sys/kernel/printk_devkmsg
# If this program itself ends, the kernel panics; then it must restart and not stand still.
[ "$(cat /proc/sys/kernel/panic)" != 0 ] || echo 10 >/proc/sys/kernel/panic

root_is='' fstype=ext4 flags='' access=rw mode_is=disk init=/sbin/init debug='' plugged='' own_disk=''
overlay_size=50% scratch_size=50% timeout=30 above=''
partitions='' server='' node='' http=8080 nfs_port=2049 mount_port='' ram='' ram_size='' bootif='' net_timeout=120
telling='' nodes=''
set -f
# shellcheck disable=SC2013  # words are wanted, not lines
for word in $(cat /proc/cmdline); do
    case "$word" in
    root=*) root_is="${word#root=}" ;;
    rootfstype=*) fstype="${word#rootfstype=}" ;;
    rootflags=*) flags="${word#rootflags=}" ;;
    ro) access=ro ;;
    rw) access=rw ;;
    init=*) init="${word#init=}" ;;
    gt.root=*) mode_is="${word#gt.root=}" ;;
    gt.overlay_size=*) overlay_size="${word#gt.overlay_size=}" ;;
    gt.scratch_size=*) scratch_size="${word#gt.scratch_size=}" ;;
    gt.timeout=*) timeout="${word#gt.timeout=}" ;;
    gt.partitions=*) partitions="${word#gt.partitions=}" ;;
    gt.server=*) server="${word#gt.server=}" ;;
    gt.node=*) node="${word#gt.node=}" ;;
    gt.http=*) http="${word#gt.http=}" ;;
    gt.nfs_port=*) nfs_port="${word#gt.nfs_port=}" ;;
    gt.mount_port=*) mount_port="${word#gt.mount_port=}" ;;
    gt.ram=*) ram="${word#gt.ram=}" ;;
    gt.ram_size=*) ram_size="${word#gt.ram_size=}" ;;
    gt.net_timeout=*) net_timeout="${word#gt.net_timeout=}" ;;
    BOOTIF=01-*) bootif="$(echo "${word#BOOTIF=01-}" | tr A-F- a-f:)" ;;
    gt.debug) debug=1 ;;
    esac
done
set +f
trap 'die "the initramfs ended before the system was started"' EXIT
case "$timeout" in '' | *[!0-9]*) timeout=30 ;; esac
case "$net_timeout" in '' | *[!0-9]*) net_timeout=120 ;; esac

say "Linux $(uname -r), root is $mode_is"
say "loading modules of the hardware"
coldplug
# What was found may have brought buses of its own.
coldplug

# shellcheck source=netboot.sh
case "$mode_is" in nfs | ram) . /netboot.sh ;; esac
case "$mode_is" in
disk | nfs | ram) "root_$mode_is" ;;
disk-ephemeral) root_disk_ephemeral ;;
*) die "gt.root=$mode_is is not known: disk, disk-ephemeral, nfs or ram are wanted" ;;
esac
if [ -d "$root/usr/lib/systemd/system" ]; then
    # shellcheck source=systemd.sh
    . /systemd.sh
    mkdir -p "$units"
    static_nodes &
    nodes=$!
fi
case "$mode_is" in nfs | ram)
    tell root
    keep_running &
    keeping=$!
    claim
    ;;
esac
echo "$mode_is" >"$run/mode"
persist
scratch
if [ -n "$nodes" ]; then
    api_mounts &
    mounts=$!
    console_prompts
fi
case "$mode_is" in nfs | ram)
    identity
    wait "$keeping"
    ;;
esac
if [ -n "$nodes" ]; then
    idle_services
    wait "$nodes" "$mounts"
fi

[ -e "$root$init" ] || [ -L "$root$init" ] || die "the root has no $init"
tell switch
say "starting $init"
echo "$ratelimit" >/proc/sys/kernel/printk_devkmsg
# What runs by now goes on; what is only about to start would find no program any more.
told
for place in proc sys dev run; do
    [ -d "$root/$place" ] || mkdir "$root/$place"
    mount --move "/$place" "$root/$place"
done
exec switch_root "$root" "$init" "$@"
