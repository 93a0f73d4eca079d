#!/usr/bin/env bash
# Names the dependencies that no source of their package mentions, and those of the workspace that no package takes; fails if
# there are any. A name is looked for as a whole word in the code.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
found=0
# dependencies MANIFEST SECTION
dependencies() { sed -n "/^\[$2\]/,/^\[/ s/^\([a-z0-9][a-z0-9_-]*\).*/\1/p" "$1"; }
# mentioned NAME PATH…: in code; a comment does not count.
mentioned() {
  local name=${1//-/_}; shift
  [ -n "$(grep -rhw --include='*.rs' -- "$name" "$@" 2>/dev/null | grep -vE '^\s*//')" ]
}
for manifest in Cargo.toml pkg/*/Cargo.toml; do
  directory=$(dirname "$manifest")
  if [ "$directory" = . ]; then code=(cmd) tests=(tests cmd); else code=("$directory/src") tests=("$directory/tests" "$directory/examples" "$directory/benches" "$directory/src"); fi
  # Tests of the package that lie elsewhere.
  for path in $(sed -n "s#^path = \"\(\.\./.*\)/[^/]*\.rs\"#\1#p" "$manifest"); do tests+=("$directory/$path"); done
  for name in $(dependencies "$manifest" dependencies); do
    mentioned "$name" "${code[@]}" || { echo "$manifest: nothing in ${code[*]} uses $name"; found=1; }
  done
  for name in $(dependencies "$manifest" dev-dependencies); do
    mentioned "$name" "${tests[@]}" || { echo "$manifest: no test uses $name"; found=1; }
  done
  for name in $(dependencies "$manifest" build-dependencies); do
    mentioned "$name" "$directory/build.rs" || { echo "$manifest: build.rs does not use $name"; found=1; }
  done
done
for name in $(dependencies Cargo.toml workspace.dependencies); do
  grep -qE "^$name(\.workspace|\s*=\s*\{ workspace)" pkg/*/Cargo.toml Cargo.toml ||
    { echo "Cargo.toml: no package takes $name"; found=1; }
done
exit $found
