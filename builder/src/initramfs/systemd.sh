# shellcheck shell=dash
# shellcheck disable=SC2154  # variables are init's, which reads this
#
# The part of /init that does beforehand, and all at once, for what systemd would start a process each: mounts, device
# nodes, services with nothing to do. Each of those costs systemd itself 0.1 s (QEMU), and the console's prompt waits for
# most. Everything is as the root's own units say; what the owner has changed in /etc, and what is not
# understood, is left to systemd.

units=/run/systemd/system

# as_installed UNIT: true if the root has the unit as its package brought it.
as_installed() {
    [ -f "$root/usr/lib/systemd/system/$1" ] || return 1
    for changed in "$root/etc/systemd/system/$1" "$root/etc/systemd/system/$1.d"; do
        if [ -e "$changed" ] || [ -L "$changed" ]; then return 1; fi
    done
}

# skip SERVICE...: what they do is done. The mask is for this boot.
skip() {
    for service; do
        ln -sf /dev/null "$units/$service.service"
    done
}

# Device nodes that load a module when they are opened, as the kernel lists them, with the rights that Debian gives them.
static_nodes() {
    services="kmod-static-nodes systemd-tmpfiles-setup-dev-early systemd-tmpfiles-setup-dev"
    for service in $services; do
        as_installed "$service.service" || return 0
    done
    rights="$root/usr/lib/tmpfiles.d/static-nodes-permissions.conf"
    if [ -e "$root/etc/tmpfiles.d/${rights##*/}" ] || [ -L "$root/etc/tmpfiles.d/${rights##*/}" ]; then return 0; fi
    # Nothing else may have a word about /dev.
    [ "$(grep -lsE '^[^#[:space:]]+[[:space:]]+/dev(/|[[:space:]])' \
        "$root"/usr/lib/tmpfiles.d/*.conf "$root"/etc/tmpfiles.d/*.conf)" = "$rights" ] || return 0
    ! grep -qE '^[^#z[:space:]]|^z[^[:space:]]' "$rights" || return 0
    while read -r module name numbers; do
        case "$module $numbers" in '#'* | *' ') continue ;; esac
        case "$name" in */*) mkdir -p "/dev/${name%/*}" ;; esac
        device="${numbers#?}"
        [ -e "/dev/$name" ] ||
            mknod -m 0600 "/dev/$name" "${numbers%"$device"}" "${device%:*}" "${device#*:}"
    done <"$root/usr/lib/modules/$(uname -r)/modules.devname"
    while read -r z path bits user group _; do
        if [ "$z" != z ] || [ ! -e "$path" ]; then continue; fi
        chmod "$bits" "$path"
        owner="$(id_of passwd "$user"):$(id_of group "$group")"
        [ "$owner" = : ] || chown "$owner" "$path"
    done <"$rights"
    # shellcheck disable=SC2086  # these are words
    skip $services
}

# id_of passwd|group NAME: its number in the root; nothing for `-`.
id_of() { [ "$2" = - ] || sed -n "s/^$2:[^:]*:\([0-9]*\):.*/\1/p" "$root/etc/$1"; }

# What systemd mounts by a `mount` each. It takes what it finds mounted for its own.
api_mounts() {
    for unit in tmp.mount run-lock.mount dev-hugepages.mount dev-mqueue.mount; do
        if as_installed "$unit" && wanted "$unit"; then
            mount_unit "$root/usr/lib/systemd/system/$unit"
        fi
    done
}

# wanted UNIT: true if a target of the root asks for it.
wanted() {
    for link in "$root"/usr/lib/systemd/system/*.wants/"$1" "$root"/etc/systemd/system/*.wants/"$1"; do
        [ ! -L "$link" ] || return 0
    done
    return 1
}

mount_unit() {
    what='' where='' type='' options=''
    while IFS='=' read -r key value; do
        case "$key" in
        What) what="$value" ;;
        Where) where="$value" ;;
        Type) type="$value" ;;
        Options) options="$(echo "$value" | sed 's/%%/\n/g; /%/d; s/\n/%/g')" ;;
        ConditionPathExists) [ -e "$value" ] || return 0 ;;
        ConditionPathIsSymbolicLink) [ ! -L "$root${value#!}" ] || return 0 ;;
        esac
    done <"$1"
    case "$where" in
    # These two move with what they are in.
    /dev/* | /run/*) place="$where" ;;
    *) place="$root$where" ;;
    esac
    if [ -z "$options" ] || grep -q " $place " /proc/mounts; then return 0; fi
    mkdir -p "$place"
    mount -t "$type" -o "$options" "$what" "$place"
}

# The prompt on a console of the kernel's waits for udev to find the device. That is there, since the kernel writes to it,
# and udev comes to it seconds later than all else is ready.
console_prompts() {
    read -r consoles </sys/class/tty/console/active
    for console in $consoles; do
        case "$console" in tty | tty[0-9]*) continue ;; esac
        for template in "$root/etc/systemd/system" "$root/usr/lib/systemd/system"; do
            template="$template/serial-getty@.service"
            [ ! -f "$template" ] || {
                sed '/^BindsTo=dev-%i\.device$/d; s/^After=dev-%i\.device /After=/' "$template" \
                    >"$units/serial-getty@$console.service"
                break
            }
        done
    done
}

# Services that have nothing to do on this root.
idle_services() {
    # There is nothing to be mounted otherwise than it is.
    if as_installed systemd-remount-fs.service && ! grep -qs '^[[:space:]]*[^#[:space:]]' "$root/etc/fstab"; then
        skip systemd-remount-fs
    fi
    # A seed that is saved on a root that forgets is lost, and the same one in each boot is none.
    if [ "$mode_is" != disk ] && as_installed systemd-random-seed.service &&
        [ "$(stat -c %d "$root/var/lib/systemd")" = "$(stat -c %d "$root")" ]; then
        skip systemd-random-seed
    fi
}
