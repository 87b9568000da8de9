#!/bin/sh
# Makes the virtual environment and installs a pinned set: scripts/setup.sh requirements-dev.txt
#
#   VENV=.venv      where it is made
#   PYTHON=python3  which Python makes it; without it, the newest that is usable
#
# Does nothing, quickly, when everything is as it should be. Plain sh: it runs before Python does.
set -eu

requirements=$1
venv=${VENV:-.venv}
stamp="$venv/.installed-$requirements"

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

new_enough() { # python
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

can_make_venv() { # python
    "$1" -c 'import venv, ensurepip' >/dev/null 2>&1
}

version_of() { # python
    "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null || echo 'none that runs'
}

choose_python() {
    incomplete=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        new_enough "$candidate" || continue
        if can_make_venv "$candidate"; then
            chosen=$candidate
            return
        fi
        incomplete=${incomplete:-$candidate}
    done
    if [ -n "$incomplete" ]; then
        minor=$("$incomplete" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        stop "Python $minor ($incomplete) has no venv or no ensurepip, so it cannot make $venv." \
            "Install it (Debian, Ubuntu: sudo apt install python$minor-venv) and run make again," \
            "or name another Python: make setup PYTHON=/path/to/python3"
    fi
    looked=${PYTHON:-python3}
    stop "Docyard needs Python 3.11 or newer; $looked is $(version_of "$looked")." \
        "Install one (Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python@3.13)" \
        "and run make again, or name it: make setup PYTHON=/path/to/python3.13"
}

usable() { # whether the environment that is there will do
    new_enough "$venv/bin/python" || return 1
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    # An explicit PYTHON=… of another version means: make it with that one.
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]
}

wanted() { # what the stamp must say
    cat requirements*.txt | cksum
    version_of "$venv/bin/python"
}

if [ -f "$stamp" ] && [ -z "${PYTHON:-}" ] && [ "$(wanted)" = "$(cat "$stamp")" ]; then
    exit 0
fi

if ! usable; then
    if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
        stop "$venv is in the way: it is not a virtual environment. Move it, or name another: VENV=…"
    fi
    choose_python
    [ ! -e "$venv" ] || echo "Making $venv anew: it is broken or of another Python."
    rm -rf "$venv"
    echo "Making $venv with Python $(version_of "$chosen") ($chosen) …"
    "$chosen" -m venv "$venv" || stop "$venv could not be made; the lines above say why."
fi

if [ ! -f "$stamp" ] || [ "$(wanted)" != "$(cat "$stamp")" ]; then
    echo "Installing $requirements into $venv (Python $(version_of "$venv/bin/python")) …"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" ||
        stop "The packages could not be installed; the lines above say why. Then run make again."
    wanted >"$stamp"
fi
