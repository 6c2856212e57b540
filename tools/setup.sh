#!/bin/sh
# Makes this machine ready for a part of the work.  Usage: tools/setup.sh python|peers|runtime|dev
#
#   python    python3 with venv, from the system's packages
#   peers     the servers and clients the tests run against
#   runtime   .venv with the program and what it needs
#   dev       .venv with what tests and checks need as well
#
# As root it installs system packages; otherwise it prints the one line that would.  What is there already is left
# alone, so a second run needs no network.  Services of the peers are installed, never started.
set -eu
cd "$(dirname "$0")/.."

PYTHON_PACKAGES="python3 python3-venv"
PEER_PACKAGES="postfix dovecot-imapd dovecot-pop3d dovecot-lmtpd nsd unbound swaks isync offlineimap3 fetchmail mpop
    neomutt tmux curl strace openssl ca-certificates bind9-dnsutils bind9-utils libnet-ssleay-perl
    libfuse3-3 e2fsprogs xfsprogs btrfs-progs"
POLICY=/usr/sbin/policy-rc.d

missing() {
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || printf '%s ' "$package"
    done
}

# dpkg asks policy-rc.d whether a service may start: 101 is no.  Whatever was there comes back afterwards.
hold_services() {
    kept=$(mktemp -d)
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then cp -a "$POLICY" "$kept/policy-rc.d"; fi
    trap release_services EXIT
    trap 'exit 130' INT TERM
    rm -f "$POLICY"
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

release_services() {
    rm -f "$POLICY"
    if [ -e "$kept/policy-rc.d" ] || [ -L "$kept/policy-rc.d" ]; then cp -a "$kept/policy-rc.d" "$POLICY"; fi
    rm -rf "$kept"
    trap - EXIT INT TERM
}

# Installs the packages that are missing.  Fails where it may not or cannot.
packages() {
    wanted=$(missing "$@")
    [ -n "$wanted" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing: $wanted" >&2
        echo "run:     sudo apt-get update && sudo apt-get install -y $wanted" >&2
        return 1
    fi
    echo "installing $wanted"
    export DEBIAN_FRONTEND=noninteractive
    hold_services
    log=$(mktemp)
    result=0
    # shellcheck disable=SC2086  # one word a package
    install_packages $wanted >"$log" 2>&1 || result=$?
    if [ "$result" -ne 0 ]; then tail -n 20 "$log" >&2; fi
    rm -f "$log"
    release_services
    return "$result"
}

install_packages() {
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections &&
        apt-get update -qq &&
        apt-get install -y -qq --no-remove --no-install-recommends "$@"
}

python() {
    if python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then return 0; fi
    # shellcheck disable=SC2086
    packages $PYTHON_PACKAGES
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "Fumibako needs Python 3.11 or newer; python3 here is $(python3 --version 2>&1)" >&2
        exit 1
    fi
}

peers() {
    # shellcheck disable=SC2086
    packages $PEER_PACKAGES || echo "going on without them: tests that need a peer are skipped by name" >&2
}

environment() {
    python
    [ -x .venv/bin/python ] || python3 -m venv .venv
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    # Dependency groups (PEP 735) came with pip 25.1.
    .venv/bin/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (25, 1))' ||
        .venv/bin/python -m pip install -q --upgrade 'pip>=25.1'
    .venv/bin/python -m pip install -q -e . "$@"
}

case "${1:-}" in
python) python ;;
peers) peers ;;
runtime) environment ;;
dev) environment --group dev ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
