#!/bin/sh
# Proves the README's first lines: a minimal Debian 12, line zero, a clone, both commands, as root and as a user.
# Usage (as root): tools/fresh.sh [FOLDER]    FOLDER (default: a temporary one) holds the new system and is removed.
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "make fresh needs root: it builds a system and mounts /proc in it" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "run: apt-get install -y debootstrap" >&2; exit 1; }
# The mounts live in a namespace of this run and go with it.
[ -n "${FUMIBAKO_FRESH:-}" ] || FUMIBAKO_FRESH=1 exec unshare --mount --propagation private "$0" "$@"

system=${1:-$(mktemp -d)}
chmod 755 "$system"
# shellcheck disable=SC2016  # apt expands this, not the shell
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
started=$(date +%s)

cleanup() {
    umount -R "$system" 2>/dev/null || true
    if grep -q " $system[ /]" /proc/self/mounts; then echo "still mounted, left alone: $system" >&2; else rm -rf "$system"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Runs a command line inside, as root or as the user `someone`.
inside() {
    who=$1
    shift
    chroot "$system" su - "$who" -c "$*"
}

step() {
    echo "== $(($(date +%s) - started)) s: $*"
}

step "debootstrap, minbase, bookworm"
debootstrap --variant=minbase bookworm "$system" "$mirror" >"$system.log" 2>&1 || { tail -n 20 "$system.log" >&2; exit 1; }
rm -f "$system.log"
mount --bind "$system" "$system"        # as on a real machine its / is a mount, whose propagation the tests change
mount -t proc proc "$system/proc"
mount --rbind /dev "$system/dev"
git clone -q --bare . "$system/srv/fumibako.git"

# The new system reaches its mirrors the way this one does: name servers, proxies, certificates.
cp /etc/resolv.conf "$system/etc/resolv.conf"
cp -a /etc/apt/apt.conf.d/. "$system/etc/apt/apt.conf.d/"
env | grep -E '^(PIP_DEFAULT_TIMEOUT|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY)=' | sed 's/^/export /' >"$system/etc/profile.d/mirrors.sh" || true
if [ -n "${PIP_CERT:-}" ]; then
    cp "$PIP_CERT" "$system/etc/mirrors.pem"
    echo "export PIP_CERT=/etc/mirrors.pem" >>"$system/etc/profile.d/mirrors.sh"
fi

step "line zero"
inside root "apt-get update -qq && apt-get install -y -qq git make" >/dev/null
inside root "useradd --create-home --shell /bin/sh someone && git config --system --add safe.directory '*'"

for who in root someone; do
    step "clone as $who"
    inside "$who" "git clone -q /srv/fumibako.git fumibako"
    step "make demo as $who"
    inside "$who" "cd fumibako && make demo"
    step "make test as $who"
    inside "$who" "cd fumibako && make test"
done
step "done"
