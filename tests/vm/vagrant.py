"""`make vagrant-test`: this checkout's Vagrantfile with libvirt, and korch on the machines it makes. Output:
last-vagrant-test.txt.

All of it, libvirt's daemon too, runs in network, mount and PID namespaces of its own: this machine gets no bridge, no
firewall rule and no setting, and whatever happens, nothing goes on running. The machines are emulated, so the box has
no boot loader: the kernel is started directly, as Vagrant's own home says to it; the Vagrantfile is used as it is.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from korch.errors import KorchError, SetupError
from korch.lab.machine import CLEAN_ENV, run, succeeds
from tests.vm.cargo import write_sample_image
from tests.vm.image import ROOT, Image, ensure_image, work_folder
from tests.vm.machine import KERNEL_WORDS
from tests.vm.transcript import StepFailedError, Transcript, finish

OUTPUT = Path(__file__).with_name("last-vagrant-test.txt")
NODES = ("node1", "node2")
BOX, IMAGE = "korch/debian", "localhost/web:1"
# No security driver, no control groups and no other daemon is at hand in the namespaces.
QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
cgroup_controllers = [ ]
stdio_handler = "file"
namespaces = [ ]
"""
SETTINGS = """\
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.ssh.private_key_path = "{key}"
  config.vm.provider "libvirt" do |machine|
    machine.driver = "qemu"
    machine.cpu_mode = "maximum"
    machine.kernel = "{folder}/vmlinuz"
    machine.initrd = "{folder}/initrd.img"
    machine.cmd_line = "{words}"
    machine.storage_pool_name = "korch"
    machine.graphics_type = "none"
    machine.video_type = "none"
  end
end
"""


def main() -> int:
    """Exit status 0 when all of it went well."""
    if sys.argv[1:] == ["inside"]:
        return _inside(work_folder() / "vagrant")
    try:
        ensure_image()
    except KorchError as error:
        print(f"Error: {error}. {error.hint}", file=sys.stderr)
        return error.exit_code
    alone = (
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    )
    # The shell is process 1 there and buries the dead.
    again = ("sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "tests.vm.vagrant", "inside")
    return subprocess.run((*alone, *again), cwd=ROOT, check=False).returncode


def _inside(work: Path) -> int:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    transcript = Transcript(OUTPUT, {str(work): "WORK", str(work_folder()): "WORK", str(ROOT): "CHECKOUT"})
    try:
        image = ensure_image()
        with _libvirt(work):
            _add_box(work, image)
            try:
                _test(transcript, work)
            finally:
                _vagrant(transcript, work, "destroy -f", status=None)
            transcript.check("machines that libvirt knows", run("virsh", "list", "--all", "--name").strip(), "")
    except (KorchError, StepFailedError, subprocess.SubprocessError, OSError) as error:
        return finish(transcript, error)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return finish(transcript, None)


# --- libvirt and the box ---


@contextmanager
def _libvirt(work: Path) -> Iterator[None]:
    """libvirt's daemon on files of its own, with a storage pool."""
    shutil.copytree("/etc/libvirt", work / "etc")
    (work / "etc/qemu.conf").write_text(QEMU_CONF)
    with (work / "etc/libvirtd.conf").open("a") as conf:
        conf.write('\nauth_unix_rw = "none"\n')
    for folder in ("qemu/networks/autostart", "qemu/autostart"):
        shutil.rmtree(work / "etc" / folder, ignore_errors=True)  # this machine's own machines are not our business
    run("ip", "link", "set", "lo", "up")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    for folder in ("/run", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt"):
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    run("mount", "--bind", str(work / "etc"), "/etc/libvirt")
    with (work / "libvirtd.log").open("wb") as log:
        process = subprocess.Popen(("libvirtd",), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=CLEAN_ENV)
    try:
        deadline = time.monotonic() + 60
        while not succeeds("virsh", "list"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SetupError(f"libvirtd does not answer: {(work / 'libvirtd.log').read_text()[-400:]}")
            time.sleep(0.5)
        (work / "pool").mkdir()
        run("virsh", "pool-define-as", "korch", "dir", "--target", str(work / "pool"))
        run("virsh", "pool-start", "korch")
        yield
    finally:
        process.terminate()
        process.wait(30)


def _add_box(work: Path, image: Image) -> None:
    """The disk as a Vagrant box, and what Vagrant has to know of this machine in its home."""
    size_gib = -(-image.disk.stat().st_size // (1 << 30))
    run("qemu-img", "convert", "-O", "qcow2", str(image.disk), str(work / "box.img"), timeout_s=600)
    (work / "metadata.json").write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": size_gib})
    )
    (work / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n')
    with tarfile.open(work / "korch.box", "w") as box:
        for name in ("metadata.json", "Vagrantfile", "box.img"):
            box.add(work / name, name)
    (work / "box.img").unlink()
    (work / "home").mkdir()
    settings = SETTINGS.format(key=image.key, folder=image.folder, words=KERNEL_WORDS)
    (work / "home/Vagrantfile").write_text(settings)
    add = ("vagrant", "box", "add", "--name", BOX, str(work / "korch.box"))
    run(*add, timeout_s=600, env=_environment(work))
    (work / "korch.box").unlink()


# --- the test ---


def _test(transcript: Transcript, work: Path) -> None:
    transcript.title("The machines of the Vagrantfile")
    _vagrant(transcript, work, "up --provider=libvirt", timeout_s=1800)
    _vagrant(transcript, work, "status")
    tar = work / "web.tar"
    write_sample_image(tar, "1", IMAGE)
    transcript.title("korch on them")
    _korch(transcript, work, "nodes -o wide")
    _korch(transcript, work, "node check", status=None)
    _korch(transcript, work, f"image push --archive {tar}")
    _korch(transcript, work, f"deploy {IMAGE} --replicas 2 --port 8080 --health /healthz --timeout 600")
    _korch(transcript, work, "get pods -o wide")
    _check_pages(transcript, work)
    _korch(transcript, work, "delete web")
    for node in NODES:
        found = _vagrant(transcript, work, f"ssh {node} -c 'docker ps -aq'")
        transcript.check(f"containers left on {node}", found.strip(), "")


def _check_pages(transcript: Transcript, work: Path) -> None:
    """A replica on each machine, and its page at the address of the private network."""
    pods = json.loads(_quiet(work, "get pods -o json"))["items"]
    transcript.check("nodes with a replica", sorted(pod["spec"]["nodeName"] for pod in pods), list(NODES))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for pod in sorted(pods, key=lambda pod: pod["spec"]["nodeName"]):
        for status in pod["status"]["containerStatuses"]:
            for port in status["published"]:
                with opener.open(f"http://{port['hostIP']}:{port['hostPort']}/", timeout=60) as answer:
                    page = answer.read().decode().rpartition(" on ")[0]
                transcript.check(f"page at {port['hostIP']} on {pod['spec']['nodeName']}", page, "web version 1")


def _environment(work: Path) -> dict[str, str]:
    settings = {"KORCH_NODES": str(len(NODES)), "KORCH_BOX": BOX, "KORCH_HOME": str(work / "korch-home")}
    vagrant = {
        "VAGRANT_HOME": str(work / "home"),
        "VAGRANT_DOTFILE_PATH": str(work / "dot"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    }
    return {**CLEAN_ENV, **settings, **vagrant, "HOME": str(work), "PYTHONPATH": str(ROOT), "COLUMNS": "140"}


def _vagrant(transcript: Transcript, work: Path, words: str, **options: object) -> str:
    call: Callable[..., str] = transcript.run
    return call(f"vagrant {words}", ("vagrant", *shlex.split(words)), cwd=ROOT, env=_environment(work), **options)


def _korch(transcript: Transcript, work: Path, words: str, **options: object) -> str:
    call: Callable[..., str] = transcript.run
    shown = f"korch -i vagrant {words}"
    return call(shown, (sys.executable, "-m", *shlex.split(shown)), cwd=ROOT, env=_environment(work), **options)


def _quiet(work: Path, words: str) -> str:
    argv = (sys.executable, "-m", "korch", "-i", "vagrant", *words.split())
    return subprocess.run(
        argv, cwd=ROOT, env=_environment(work), capture_output=True, text=True, check=True, timeout=600
    ).stdout


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
