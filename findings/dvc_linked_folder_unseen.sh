#!/bin/sh
# dvc 3.67.1: a linked folder inside a dependency is not looked into, and nothing is said.
#
# Guess before the run: a stage that depends on a folder sees all below it, files behind a linked folder as well as those
# behind a linked file; or dvc refuses the link.
# Seen: a linked file is followed (another target makes the stage stale). A linked folder counts as nothing: dvc.lock
# records the dependency without its files, and after the folder behind the link has changed the stage is up to date.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3.11} -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dvc==3.67.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1
mkdir -p "$folder/study/own" "$folder/behind"
cd "$folder/study"
echo one > "$folder/behind/weights"
echo one > "$folder/single"
ln -s "$folder/behind" own/folder
ln -s "$folder/single" own/file
dvc init -q --no-scm
printf 'stages:\n  base:\n    cmd: cat own/folder/weights own/file > out\n    deps: [own]\n    outs: [out]\n' > dvc.yaml
dvc repro -q
files=$(sed -n 's/^ *nfiles: //p' dvc.lock | head -1)
echo "files recorded: $files"
echo two > "$folder/behind/weights"
folder_says=$(dvc status)
echo "after a change behind the linked folder: $folder_says"
echo two > "$folder/single"
file_says=$(dvc status)
echo "after a change behind the linked file:" $file_says
case "$files/$folder_says/$file_says" in
1/*"up to date"*/*changed*) ;;
*) echo "no longer so"; exit 1 ;;
esac
