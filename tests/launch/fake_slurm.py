"""SLURM's commands as far as submitting needs them: a queue in a file, and what sbatch got."""

from __future__ import annotations

from pathlib import Path

SBATCH = """\
#!/bin/bash
number=$((100 + $(wc -l < QUEUE)))
script="${@: -1}"
if [ "$1" = --test-only ]; then echo "sbatch: Job 1 to start at 12:00" >&2; exit; fi
env -0 > FOLDER/$number.env
cp "$script" FOLDER/$number.sh
name=$(grep -oP -- '--job-name=\\K.*' "$script")
size=$(grep -oP -- '--array=0-\\K[0-9]+' "$script")
echo "$number|$size|$name" >> QUEUE
echo "Submitted batch job $number"
"""
SQUEUE = """\
#!/bin/bash
env -0 > FOLDER/squeue.env
state=$(cat STATE)
while IFS='|' read number size name; do
  case "$*" in *"$name"*) ;; *) continue ;; esac
  if [ -z "$size" ]; then echo "$number|$number|N/A|$state||$name|Priority"; continue; fi
  for i in $(seq 0 $size); do echo "${number}_$i|$number|$i|$state||$name|Priority"; done
done < QUEUE
"""
SCONTROL = '#!/bin/bash\necho "MaxArraySize = 1001"\n'


class FakeSlurm:
    """A cluster on which every job stays in one state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.queue, self.word = folder / "queue", folder / "state"
        self.queue.touch()
        self.state("PENDING")
        for name, text in {
            "sbatch": SBATCH,
            "squeue": SQUEUE,
            "scontrol": SCONTROL,
            "scancel": "#!/bin/bash\n",
            "srun": "#!/bin/bash\n",
        }.items():
            text = text.replace("QUEUE", str(self.queue)).replace("STATE", str(self.word))
            (self.bin / name).write_text(text.replace("FOLDER", str(folder)))
            (self.bin / name).chmod(0o755)

    def state(self, word: str) -> None:
        """Let every job be in this state."""
        self.word.write_text(word)

    @property
    def jobs(self) -> list[int]:
        """The ids of all jobs that were submitted."""
        return [int(line.partition("|")[0]) for line in self.queue.read_text().splitlines()]

    def script(self, job: int) -> str:
        """Return the script of a job."""
        return (self.folder / f"{job}.sh").read_text()

    def environment(self, name: object) -> dict[str, str]:
        """Return the variables that a job, or squeue, was called with."""
        text = (self.folder / f"{name}.env").read_text()
        return dict(pair.split("=", 1) for pair in text.split("\0") if pair)
