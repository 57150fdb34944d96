#!/bin/sh
# Makes .venvs/NAME for every requirements-NAME.txt beside this file (or for the names given):
#     setup.sh PYTHON [NAME ...]
# PYTHON is that of Stormsweep's own environment. The others are laid over its packages, so that
# TensorFlow, Keras and all they share are the same files, and hold only what a peer adds. A peer
# that cannot be installed leaves NAME.failed, which the table quotes.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=$1
shift
[ $# -gt 0 ] || set -- $(ls "$here" | sed -n 's/^requirements-\(.*\)\.txt$/\1/p')
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || exit 1
mkdir -p "$here/.venvs"

for name in "$@"; do
  home=$here/.venvs/$name
  wanted=$here/requirements-$name.txt
  mark=$(echo "$packages"; cat "$wanted")
  [ "$mark" = "$(cat "$home/.ready" 2> /dev/null)" ] && continue
  echo "Installing $name ..."
  rm -rf "$home" "$home.failed"
  "$python" -m venv "$home" || exit 1
  own=$("$home/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$packages" > "$own/stormsweep-packages.pth"
  if "$home/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps \
    -r "$wanted" > "$home.log" 2>&1
  then
    echo "$mark" > "$home/.ready"
  else
    grep -i error "$home.log" | tail -n 1 | cut -c 1-200 > "$home.failed"
    echo "  $name cannot be installed: $(cat "$home.failed")"
  fi
done
