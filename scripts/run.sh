# Sourced by the wrappers, with a module of nepa3d and flags: runs it with the flags that upper-case variables give.
cd "${PBS_O_WORKDIR:-.}" # a PBS job starts at home
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" -u -m nepa3d.cli.from_environment "$@"
