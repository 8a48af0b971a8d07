# shellcheck shell=dash
# shellcheck disable=SC2154,SC2034  # variables are shared with init, which reads this
#
# The part of /init for roots that come from a server (gt.root=nfs and gt.root=ram): the network, the
# root, the node's secrets, and what the running system needs to keep such a root.
#
#   gt.server=10.4.0.10, gt.node=fenn   who serves, and as whom; both are needed
#   gt.http=8080                        the server's HTTP port
#   gt.nfs_port=2049, gt.mount_port=... its NFS port, and the one for MOUNT where that is another
#   gt.ram=sha256:<hex>, gt.ram_size=   digest and bytes of the image for gt.root=ram
#   gt.net_timeout=120                  seconds to wait for cable, lease and server, each
#   BOOTIF=01-<mac with dashes>         the network card to use; else the first wired one with a carrier
#
# The running system finds in /run/gt: `boot` (server, HTTP port, node), `address`, `secrets/`, the SSH
# host key, and `busybox`, which needs no root to run.

# --- The server ----------------------------------------------------------------------------------

# tell STEP [DETAIL]: a line of the boot's record, one after another. The boot goes on meanwhile, and whether it is
# heard or not.
tell() {
    [ -s "$run/address" ] || return 0
    # What a URL cannot hold is not worth an encoder; the server reads `+` as a space.
    detail="$(printf %s "$2" | tr -c 'A-Za-z0-9_.,:=/()-' '+')"
    told
    timeout 5 wget -q -T 3 -O /dev/null --post-data '' "$boot_url/step?name=$1&detail=$detail" 2>/dev/null &
    telling=$!
}

told() { [ -z "$telling" ] || wait "$telling"; }

# again WHAT COMMAND...: repeats COMMAND with growing pauses until it succeeds or the deadline passes.
again() {
    what="$1"
    shift
    end=$(($(seconds) + net_timeout)) pause=1
    until "$@"; do
        [ "$(seconds)" -lt "$end" ] || return 1
        warn "$what: again in $pause seconds"
        sleep "$pause"
        [ "$pause" -ge 16 ] || pause=$((pause * 2))
    done
}

# --- The network ---------------------------------------------------------------------------------

# find_card: sets `card` to the interface to use. Wired hardware only, and raised first: there is no
# carrier before.
find_card() {
    for path in /sys/class/net/*; do
        if [ ! -e "$path/device" ] || [ -e "$path/phy80211" ]; then continue; fi
        read -r type <"$path/type"
        read -r mac <"$path/address"
        [ "$type" = 1 ] || continue
        [ -z "$bootif" ] || [ "$mac" = "$bootif" ] || continue
        card="${path##*/}"
        ip link set "$card" up
        [ "$(cat "$path/carrier" 2>/dev/null)" != 1 ] || return 0
    done
    return 1
}

cards() {
    for path in /sys/class/net/*; do
        [ ! -e "$path/device" ] || echo "${path##*/}=$(cat "$path/address")"
    done | tr '\n' ' '
}

# The class says to a DHCP server's log who asks; the client identifier is the MAC, as networkd's will be.
ask_lease() { udhcpc -f -q -n -t 4 -T 3 -i "$card" -s /netboot/lease -V gt-image >/dev/null 2>&1; }

network_up() {
    if [ -z "$server" ] || [ -z "$node" ]; then die "gt.root=$mode_is needs gt.server= and gt.node="; fi
    boot_url="http://$server:$http/boot/$node"
    timeout="$net_timeout"
    wait_for "a network cable" find_card ||
        die "no wired network with a carrier${bootif:+ on $bootif}; found: $(cards)"
    say "$card ($mac) has a carrier, asking for an address"
    again "no answer by DHCP" ask_lease || die "no address by DHCP on $card in $net_timeout seconds"
    say "address $(cat "$run/address"), server $server"
    tell init
}

# --- The root ------------------------------------------------------------------------------------

# The root is the server's, read-only, below memory.
root_nfs() {
    # Some megabytes of modules, while the network comes up.
    modprobe -aq nfs nfsv3 loop ext4 &
    modules=$!
    network_up
    wait "$modules"
    mkdir -p "$run/lower"
    say "mounting $server:/$node"
    again "$server:/$node cannot be mounted" mount_nfs ||
        die "$server:/$node cannot be mounted, see the kernel's lines above"
    read_ahead
    attributes
    overlay_over_lower
    # overlayfs holds what it needs. A mount in sight would hang whoever looks at it while the server is
    # away, such as `df` and systemd's own end. Lazily, because the loop device has a file open there.
    [ -z "$above" ] || umount "$above"
    umount -l "$run/lower"
    (cd "$root/usr/lib" && read_early >/dev/null 2>&1) &
}

# What systemd reads in every boot before it starts anything, one small file after another and each by three calls
# of the server: read while init still has other things to do, so that it is in memory by then. That is systemd's
# first 7 s in place of 12 (QEMU, two cores); what is not there is left out.
read_early() {
    cat systemd/systemd ./*/systemd/*.so systemd/systemd-executor systemd/system-generators/* \
        systemd/system/* systemd/system/*/* ../../etc/systemd/* ../../etc/systemd/*/* ../../etc/systemd/*/*/* \
        udev/rules.d/*
}

# The port first: the kernel would wait for minutes, and not say for what. Then the options:
# `addr` and `mountaddr`, because busybox adds none; `nocto,actimeo`, because what is served never
# changes (half of all calls of a boot); never `noacl`, because overlayfs would refuse every user but
# root (ENOTSUPP from the lower's ACLs, seen on 6.12.107).
mount_nfs() {
    nc -w 5 "$server" "$nfs_port" -e true 2>/dev/null || {
        say "nobody listens on $server, port $nfs_port"
        return 1
    }
    timeout 60 mount -t nfs -o "ro,vers=3,tcp,nolock,addr=$server,port=$nfs_port,mountaddr=$server,\
mountport=${mount_port:-$nfs_port},mountproto=tcp,nocto,actimeo=86400" "$server:/$node" "$run/lower"
}

# The kernel reads 128 KiB ahead over NFS since 5.4. A program is some MiB and is read from end to end when it
# starts, so with more ahead it comes in fewer calls.
read_ahead() {
    while read -r _ _ device _ place _; do
        [ "$place" != "$run/lower" ] || echo 1024 >"/sys/class/bdi/$device/read_ahead_kb"
    done </proc/self/mountinfo
}

# attributes: sets `above` to a layer that goes over the lower. NFSv3 carries no extended attributes, so
# the build puts all inodes that have some, such as file capabilities, into a small filesystem besides.
attributes() {
    image="$run/lower/usr/lib/gt/xattrs.ext4"
    [ -f "$image" ] || return 0
    mkdir -p "$run/xattrs"
    if mount -t ext4 -o ro "$image" "$run/xattrs"; then
        above="$run/xattrs"
    else
        warn "extended attributes are lost, file capabilities among them"
    fi
}

# The root is an image in memory, below more memory. It outlives the server.
root_ram() {
    network_up
    case "$ram_size" in '' | *[!0-9]*) die "gt.root=ram needs gt.ram= and gt.ram_size=" ;; esac
    wanted=$((ram_size / 1024 + 65536))
    free="$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
    [ "$free" -ge "$wanted" ] ||
        die "the root needs $((wanted / 1024)) MiB of memory, $((free / 1024)) MiB are free"
    mkdir -p "$run/image" "$run/lower"
    mount -t tmpfs -o "mode=0700,size=$((ram_size + 4096))" gt-image "$run/image" ||
        die "no memory for the root's image"
    say "fetching the root, $((ram_size >> 20)) MiB"
    again "the root did not come" fetch_image || die "the root's image cannot be had from $boot_url/root.img"
    modprobe -q loop
    modprobe -q ext4
    mount -t ext4 -o ro,noatime "$run/image/root.img" "$run/lower" ||
        die "the root's image cannot be mounted, see the kernel's lines above"
    overlay_over_lower
    umount "$run/lower"
    umount -l "$run/image"
}

fetch_image() {
    image="$run/image/root.img"
    rm -f "$image"
    # Hashed as it comes: afterwards it would cost as long again.
    as_it_comes | sha256sum >"$run/sum"
    read -r sum _ <"$run/sum"
    [ "sha256:$sum" != "$ram" ] || return 0
    say "the root that came has $(image_size) bytes and sha256:$sum, wanted are $ram_size and $ram"
    return 1
}

image_size() { stat -c %s "$image" 2>/dev/null || echo 0; }

# Fetches the image and writes it to stdout too, from the file: busybox's `tee` copies 1 KiB a call, and
# with it a root of 708 MiB came in 230 s where it comes in 25 s so (QEMU, two cores).
as_it_comes() {
    wget -q -T 20 -O "$image" "$boot_url/root.img" 2>/dev/null &
    fetch=$! hashed=0 said=0 going=true
    while "$going"; do
        sleep 0.5
        kill -0 "$fetch" 2>/dev/null || going=false
        bytes="$(image_size)"
        tenths=$((bytes * 10 / ram_size)) mib=$((bytes >> 20))
        [ "$tenths" -le "$said" ] || say "${tenths}0 % of the root"
        said=$tenths
        [ "$mib" -le "$hashed" ] || dd if="$image" bs=1M skip="$hashed" count=$((mib - hashed)) 2>/dev/null
        hashed=$mib
    done
    # What is no whole MiB.
    [ $((bytes & 1048575)) = 0 ] || dd if="$image" bs=1M skip="$hashed" 2>/dev/null
}

# --- Who the node is -----------------------------------------------------------------------------

# The machine-id, the SSH host key and the secrets of the node's overlays: one archive, given once in
# each boot. Asked for before state is mounted, because a wish to wipe that comes with it.
claim() {
    mkdir -m 0700 "$run/secrets"
    fetch_secrets || warn "the node's secrets did not come ($why): it starts without them"
}

identity() {
    id="$(cat "$run/secrets/machine-id" 2>/dev/null)"
    case "$id" in
    '' | *[!0-9a-f]*)
        # Without one, systemd would take this for the first boot of a new system.
        id="$(echo "gt-image $node $mac" | sha256sum | cut -c 1-32)"
        ;;
    esac
    rm -f "$root/etc/machine-id"
    echo "$id" >"$root/etc/machine-id"
    chmod 0444 "$root/etc/machine-id"
    host_key
    own_secrets
}

fetch_secrets() {
    for pause in 1 3 0; do
        if why="$(timeout 20 wget -q -T 5 -O "$run/secrets.tar" --post-data '' "$boot_url/secrets" 2>&1)"; then
            unpack_secrets
            status=$?
            rm -f "$run/secrets.tar" "$run/secrets.age"
            return "$status"
        fi
        # A refusal stays one.
        case "$why" in *"server returned error"*) return 1 ;; esac
        sleep "$pause"
    done
    return 1
}

unpack_secrets() {
    case "$(dd if="$run/secrets.tar" bs=22 count=1 2>/dev/null)" in
    age-encryption.org/v1)
        mv "$run/secrets.tar" "$run/secrets.age"
        open_sealed || return 1
        ;;
    esac
    why="what came is no archive"
    tar -x -o -f "$run/secrets.tar" -C "$run/secrets" && chmod -R go-rwx "$run/secrets"
}

# Opens what is sealed to the key of this node, which lies on its partition gt-state. By the root's own
# `age`: the initramfs goes over TFTP in each boot, and has no room for it.
open_sealed() {
    why="they are sealed to the node's key, and there is no partition gt-state"
    find_label_late gt-state || return 1
    why="they are sealed to the node's key, and $device cannot be mounted"
    modprobe -q ext4
    mkdir -p "$root/run"
    mount -t ext4 -o ro,noatime "$device" "$root/run" || return 1
    decrypt
    opened=$?
    umount "$root/run"
    return "$opened"
}

decrypt() {
    why="they are sealed to the node's key, and $device has no /node.age"
    [ -s "$root/run/node.age" ] || return 1
    why="they are sealed to the node's key, and the root has no /usr/bin/age"
    [ -x "$root/usr/bin/age" ] || return 1
    # Its own words are worth hearing: `no identity matched any of the recipients`.
    sealed="$(chroot "$root" /usr/bin/age --decrypt --identity /run/node.age \
        <"$run/secrets.age" 2>&1 >"$run/secrets.tar")" && {
        say "the secrets came sealed to the key on $device"
        return 0
    }
    why="they are sealed to another key than $device has: $(echo "$sealed" | sed -n 1p)"
    return 1
}

host_key() {
    [ -d "$root/etc/ssh" ] || return 0
    for name in ssh_host_ed25519_key ssh_host_ed25519_key.pub; do
        [ -f "$run/secrets/$name" ] || continue
        mv "$run/secrets/$name" "$run/$name"
        ln -sf "$run/$name" "$root/etc/ssh/$name"
    done
    # Without a key sshd would fail, over and over.
    mkdir -p /run/systemd/system/ssh.service.d
    printf '[Unit]\nConditionPathExistsGlob=/etc/ssh/ssh_host_*_key\n' \
        >/run/systemd/system/ssh.service.d/50-gt-netboot.conf
}

# Lines `mode uid gid name path`: copies, because some programs refuse a link (munged does).
own_secrets() {
    [ -s "$root/etc/gt/secrets" ] || return 0
    while read -r mode uid gid name path; do
        if [ ! -f "$run/secrets/secrets$path" ]; then
            warn "the secret $name for $path did not come"
        elif ! inside "$path" || ! own_secret; then
            warn "$path: the secret $name cannot be put in place"
        fi
    done <"$root/etc/gt/secrets"
}

own_secret() {
    mkdir -p "$root${path%/*}" && rm -f "$root$path" &&
        (umask 077 && cat "$run/secrets/secrets$path" >"$root$path") &&
        chown "$uid:$gid" "$root$path" && chmod "$mode" "$root$path"
}

# --- What the running system needs -----------------------------------------------------------------

keep_running() {
    printf 'GT_SERVER=%s\nGT_HTTP=%s\nGT_NODE=%s\n' "$server" "$http" "$node" >"$run/boot"
    cp /bin/busybox "$run/busybox"
    cp /netboot/end "$run/end"
    mkfifo "$run/never"
    units=/run/systemd/system
    mkdir -p /run/systemd/network "$units/multi-user.target.wants"
    sed "s/@mac@/$mac/" /netboot/05-gt-netboot.network >/run/systemd/network/05-gt-netboot.network
    cp /netboot/*.service "$units"
    ln -s ../gt-boot-report.service "$units/multi-user.target.wants/"
    for what in reboot poweroff halt; do
        ln -s "../gt-end@.service" "$units/multi-user.target.wants/gt-end@$what.service"
    done
    # A Raspberry Pi restarts by it, and by then the root may be out of reach.
    modprobe -q bcm2835_wdt
    plain_fstab
}

# The card's partitions are not this root's: it must neither wait for them nor check them.
plain_fstab() {
    [ -s "$root/etc/fstab" ] || return 0
    kept="$(sed -E '/^[[:space:]]*[^[:space:]#]+[[:space:]]+(\/|\/boot|\/boot\/.*|none|swap)[[:space:]]/d
        /^[[:space:]]*(\/dev\/|[A-Z]*(UUID|LABEL)=)/{/nofail/!d}' "$root/etc/fstab")"
    [ "$kept" = "$(cat "$root/etc/fstab")" ] || echo "$kept" >"$root/etc/fstab"
}
