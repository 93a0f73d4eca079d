#!/usr/bin/env bash
# Installs the Debian packages that the arguments name and that are missing: packages.sh PACKAGE…
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
echo "installing ${missing[*]}"
for try in 1 2 3; do
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && exit 0
  sleep $((try * 5))
done
echo "error: cannot install ${missing[*]} with apt-get" >&2
exit 1
