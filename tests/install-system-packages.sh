#!/bin/sh
# Install what the tests run for real (a Chromium for the report, a Slurm and a munged for the cluster)
# where this may be done: on Debian and its kin, as root or with a sudo that asks nothing. Elsewhere
# say what is missing; tests then skip.
set -u
missing=""
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ||
  command -v google-chrome >/dev/null 2>&1 || missing="chromium"
for program in slurmctld slurmd sbatch; do
  PATH="$PATH:/usr/sbin" command -v $program >/dev/null 2>&1 || { missing="$missing slurm-wlm"; break; }
done
PATH="$PATH:/usr/sbin" command -v munged >/dev/null 2>&1 || missing="$missing munge"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "Not installed: $missing (no apt-get here). Tests that need it will skip."
  exit 0
fi
if [ "$(id -u)" = 0 ]; then root=""; elif sudo -n true 2>/dev/null; then root="sudo -n"; else
  echo "Not installed: $missing (not root). Tests that need it will skip."
  exit 0
fi
echo "Installing $missing ..."
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq >/dev/null 2>&1
# shellcheck disable=SC2086  # several words on purpose
$root apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
  echo "Could not install $missing. Tests that need it will skip."
exit 0
