"""Pictures that are damaged, lie, are none, or are named oddly: the right picture or one line."""

import contextlib
import hashlib
import io
import json
import os
import struct
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import BmpImagePlugin, Image, JpegImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401 - before forks

from immersivedepth.checks import InputError, UserError
from immersivedepth.data import images
from immersivedepth.data.panoramas import MIN_HEIGHT, Wild, edges_meet

from .limited import each_forked, forked
from .pictures import DAMAGES, HEIGHT, WIDTH, claim, cut, cut_and_ended, gpano, pictures, scene

SECONDS, MEMORY = 2, 2**30  # for any picture of these


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Children inherit no threads, so the libraries must not wait for theirs."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Good files by name."""
    return pictures(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def good(whole, tmp_path_factory):
    """What they hold."""
    folder = tmp_path_factory.mktemp("good")
    found = {}
    for name, data in whole.items():
        (folder / name).write_bytes(data)
        found[name] = Wild().load(folder / name)
        assert found[name].image.shape == (3, HEIGHT, WIDTH)
        assert "notes" not in found[name].about or name == "film.webp"
    return found


def load(path: Path):
    """The panorama, or the line that refuses it, which must be one and name the file."""
    try:
        return Wild().load(path)
    except InputError as error:
        line = str(error)
        code = error.code
    assert code == 3
    assert "\n" not in line
    assert images.show(path) in line
    return line


def same(one, other) -> bool:
    masks = one.mask is None or torch.equal(one.mask, other.mask) if other.mask is not None else one.mask is None
    return one.image.shape == other.image.shape and torch.equal(one.image, other.image) and masks


def test_damaged_pictures(whole, good, tmp_path, size, record):
    names = sorted(whole)

    def case(k):
        return names[k % len(names)], DAMAGES[k // len(names) % len(DAMAGES)]

    def work(k):
        name, damage = case(k)
        path = tmp_path / name
        path.write_bytes(damage(whole[name], np.random.default_rng([13, k])))
        panorama = load(path)
        if isinstance(panorama, str):
            return "refused"
        if same(panorama, good[name]):
            return "the whole picture"
        image = panorama.image
        assert image.shape[2] == 2 * image.shape[1]
        assert image.isfinite().all()
        assert image.dtype == torch.uint8 or 0 <= image.min() <= image.max() <= 1
        return "fewer scans" if any("last scans" in n for n in panorama.about.get("notes", ())) else "another picture"

    cases = range(size(150, 10_000)) if size(0, 1) else range(0, len(names) * len(DAMAGES), 3)[:150]
    seen = {"refused": 0, "the whole picture": 0, "another picture": 0, "fewer scans": 0}
    seconds = memory = 0.0
    wrong = []
    for k, ended in zip(cases, each_forked(work, cases, SECONDS, MEMORY), strict=True):
        name, damage = case(k)
        if ended.fault or ended.said:
            wrong.append((k, name, damage.__name__, ended.fault, ended.said))
            continue
        seen[ended.found] += 1
        # Without a checksum a changed number is a number; but what is missing must be missed.
        silent = damage in (cut, cut_and_ended) or (name.endswith(".png") and damage.__name__ != "checksummed")
        if silent and ended.found == "another picture":
            wrong.append((k, name, damage.__name__, "read as another picture", ""))
        seconds, memory = max(seconds, ended.seconds), max(memory, ended.memory)
    assert wrong == []
    assert seen["refused"] > len(cases) / 2
    record(
        "damaged pictures",
        pictures=len(cases),
        kinds=len(names),
        crashes=0,
        tracebacks=0,
        silent_truncations=0,
        **{key.replace(" ", "_"): count for key, count in seen.items()},
        slowest_seconds=round(seconds, 3),
        most_memory_MiB=round(memory / 2**20),
    )


def test_headers_that_lie(whole, tmp_path, size, record):
    """Above the limit the header alone decides; below it a few bytes must not take what their header claims."""
    sizes = [(65000, 32500), (12000, 6000), *([(16384, 8192)] if size(0, 1) else [])]
    cases = [(name, sides) for sides in sizes for name in whole]

    def work(case):
        name, sides = case
        path = tmp_path / name
        path.write_bytes(claim(whole[name], *sides))
        try:
            Wild().load(path)
        except UserError as error:
            return str(error)
        return "read"

    seconds = memory = 0.0
    for (name, sides), ended in zip(cases, each_forked(work, cases, SECONDS, MEMORY), strict=True):
        assert not ended.fault, (name, sides, ended)
        assert not ended.said, (name, sides, ended)
        assert ended.found != "read", (name, sides)
        assert name in ended.found
        if sides[0] == 65000:
            assert "more than the limit of 16384x8192" in ended.found, (name, ended.found)
            assert "GiB" in ended.found
            assert ended.memory < 60 * 2**20, name
        seconds, memory = max(seconds, ended.seconds), max(memory, ended.memory)
    record(
        "headers that lie",
        pictures=len(cases),
        slowest_seconds=round(seconds, 2),
        most_memory_MiB=round(memory / 2**20),
    )


def test_a_map_whose_header_lies(tmp_path):
    path = tmp_path / "a.dpt"
    path.write_bytes(struct.pack("<fii", 202021.25, 65000, 32500) + bytes(100))
    with pytest.raises(InputError, match="more than the limit"):
        images.read_map(path)


def test_the_suffix_means_nothing(whole, good, tmp_path, size, record):
    pairs = [(name, suffix) for name in sorted(whole) for suffix in images.SUFFIXES if not name.endswith(suffix)]
    chosen = pairs[:: size(9, 1)]
    for name, suffix in chosen:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(whole[name])
        panorama = load(path)
        assert not isinstance(panorama, str), panorama
        assert same(panorama, good[name]), (name, suffix)
    record("wrong suffixes", pictures=len(chosen), right=len(chosen))


def test_every_small_size(tmp_path, size, record):
    """From 1x1 to 70x70: read, or refused in one line that says what was expected."""
    every = [(w, h) for w in range(1, 71) for h in range(1, 71)]
    chosen = np.random.default_rng(1).permutation(every)[: size(150, len(every))].tolist()
    chosen += [(w, w // 2) for w in range(28, 71)]
    read = 0
    for w, h in chosen:
        path = tmp_path / "a.png"
        path.write_bytes(cv2.imencode(".png", np.full((h, w, 3), 90, np.uint8))[1].tobytes())
        panorama = load(path)
        fits = abs(w - 2 * h) <= 1 and h >= MIN_HEIGHT
        assert isinstance(panorama, str) != fits, (w, h, panorama)
        if fits:
            assert panorama.image.shape == (3, h, 2 * h)
            read += 1
        else:
            assert "expected" in panorama
    assert read >= 20
    record("small sizes", sizes=len(chosen), read=read, refused=len(chosen) - read)


def test_parts_of_panoramas(tmp_path, size, record):
    """A crop with tags is put where the tags say, to the pixel, or refused; with tags that are wrong it is refused."""
    random = np.random.default_rng(5)
    colour = np.rint(scene() * 255).astype(np.uint8)
    placed = refused = 0
    for _ in range(size(60, 2000)):
        width, height = int(random.integers(2, WIDTH - 1)), int(random.integers(2, HEIGHT - 1))
        left, top = int(random.integers(0, WIDTH - width + 1)), int(random.integers(0, HEIGHT - height + 1))
        part = colour[top : top + height, left : left + width]
        tags = gpano(WIDTH, HEIGHT, width, height, left, top)
        path = tmp_path / "part.webp"
        lie = random.random() < 0.3
        if lie:
            key = str(random.choice([k for k in tags if k.endswith("Pixels")]))
            tags[key] = random.choice(["-1", "0", "nan", "", "1e9", str(4 * WIDTH + 1)]).item()
        path.write_bytes(gpano_file(part, tags))
        panorama = load(path)
        if isinstance(panorama, str):
            assert lie, panorama
            refused += 1
            continue
        placed += 1
        if not lie:
            seen = np.zeros((HEIGHT, WIDTH), bool)
            seen[top : top + height, left : left + width] = True
            assert np.array_equal(panorama.image.permute(1, 2, 0).numpy(), colour * seen[..., None])
            assert np.array_equal(panorama.mask[0].numpy(), seen)
    assert placed > 20
    assert refused > 3
    record("parts of panoramas", placed=placed, refused=refused)


def gpano_file(pixels, tags) -> bytes:
    attributes = " ".join(f'GPano:{key}="{value}"' for key, value in tags.items())
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {attributes}/></rdf:RDF></x:xmpmeta>'
    )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=True, xmp=xmp.encode())
    return buffer.getvalue()


def test_a_photograph_of_2_to_1_is_told_of(tmp_path, size, record):
    """It may be a panorama all the same, so it is read; the log and the result say that its edges do not meet."""
    room = images.read_image(Wild().sources()[0]).image.permute(1, 2, 0).numpy()
    random = np.random.default_rng(3)
    told = false = 0
    count = size(20, 500)
    for _ in range(count):
        height = int(random.integers(128, 400))
        top, left = int(random.integers(200, 800 - height)), int(random.integers(0, room.shape[1] - 2 * height))
        told += not edges_meet(room[top : top + height, left : left + 2 * height])
        false += not edges_meet(np.roll(room, int(random.integers(room.shape[1])), axis=1))
    assert edges_meet(room)
    assert false <= 0.05 * count  # the edge of a door may lie on the seam
    path = images.write_png(tmp_path / "photo.png", room[300:600, 500:1100])
    panorama = load(path)
    assert "do not meet" in panorama.about["notes"][0]
    assert told > 0.8 * count  # a crop may begin and end at alike white walls
    record("photographs of 2:1", crops=count, told=told, turned_panoramas=count, told_in_error=false)


# --- A batch

ODD_NAMES = (
    "a=b,c.png", "-rf.jpg", "with space.bmp", "深度.webp", "ñandú.tif", "(1) {}'\"$[x].exr", "%s %d.hdr", "#1.npy",
    "..hidden.png", "CON.png", "a;b&c|d.png", "`touch x`.png", "~.png", "${seed}.png", "e\u0301.png", "\u202egpj.png",
)  # fmt: skip


def bad_files(folder: Path, whole, count: int) -> list[Path]:
    """As many different kinds of what is no panorama."""
    random = np.random.default_rng(9)
    made: dict[str, bytes] = {
        "page.jpg": b"<!DOCTYPE html><html>404</html>",
        "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "empty.png": b"",
        "zeros.exr": bytes(5000),
        "bomb.png": claim(whole["a.png"], 65000, 32500),
        "lie.jpg": claim(whole["a.jpg"], 16000, 8000),
    }
    shapes = {"top_bottom": (48, 48), "strip": (288, 48), "square_eyes": (192, 48), "photo": (64, 48), "tiny": (20, 10)}
    for name, (w, h) in shapes.items():
        made[f"{name}.png"] = cv2.imencode(".png", np.full((h, w, 3), 90, np.uint8))[1].tobytes()
    circles = np.zeros((48, 96, 3), np.uint8)
    for x in (24, 72):
        cv2.circle(circles, (x, 24), 23, (200, 180, 90), -1)
    made["fisheyes.png"] = cv2.imencode(".png", circles)[1].tobytes()
    clear = np.full((48, 96, 4), 90, np.uint8)
    clear[..., 3] = 0
    made["clear.png"] = cv2.imencode(".png", clear)[1].tobytes()
    light = scene().astype(np.float32)
    light[3, 5] = np.nan
    made["nan.pfm"] = b"PF\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + light.tobytes()
    pickled = io.BytesIO()
    np.save(pickled, np.array([[{}] * 4] * 2, dtype=object), allow_pickle=True)
    made["pickle.npy"] = pickled.getvalue()
    names = sorted(whole)
    while len(made) < count - 6:
        name = names[len(made) % len(names)]
        made[f"cut {len(made)} {name}"] = cut_and_ended(whole[name], random)[: len(whole[name]) - 40]
    for name, data in made.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "device.png").symlink_to("/dev/zero")
    others = [folder / n for n in ("pipe.png", "folder.png", "loop.png", "gone.png", "device.png", "missing.png")]
    return [folder / name for name in made][: count - 6] + others


def good_files(folder: Path, whole, count: int) -> dict[Path, np.ndarray]:
    """Good pictures with odd names in every format; beside each the distance of its own that must come out."""
    y, x = (np.mgrid[:16, :32] + 0.5) * np.pi / 16
    names = [n for n in sorted(whole) if n != "bits.png"]
    found = {}
    for k in range(count):
        name = ODD_NAMES[k % len(ODD_NAMES)]
        place = folder / f"{k // len(ODD_NAMES)}"  # the same names again in other folders
        place.mkdir(exist_ok=True)
        path = place / name
        path.write_bytes(whole[names[k % len(names)]])
        found[path] = (3 + np.sin(y) ** 2 * np.cos(x - 2 * np.pi * k / count)).astype(np.float32)
        images.write_npy(path.with_name(f"{path.stem}_distance.npy"), found[path])
    return found


def command_line(*arguments: str):
    """Exit code, stdout and stderr of the program in this process."""
    import core_exp_runner

    sys.argv = ["core_exp_runner.py", *arguments]
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            core_exp_runner.main()
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and not p.is_symlink()
    }


def test_a_batch_of_bad_and_good_pictures(whole, tmp_path, size, record):
    """The results lie in the folder of the inputs, where nothing may be lost."""
    import core_exp_runner  # noqa: F401 - before the fork
    from immersivedepth import batch, runs  # noqa: F401

    folder = tmp_path / "pictures"
    folder.mkdir()
    good, bad = good_files(folder, whole, size(6, 40)), bad_files(folder, whole, size(24, 60))
    everything = [*good, *bad]
    order = [everything[i] for i in np.random.default_rng(4).permutation(len(everything))]
    listed = folder / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in order), encoding="utf-8")
    before = contents(folder)
    begun = time.monotonic()
    arguments = ["predict=[oracle]", "project.resolution=32", "export=[arrays]", "refine=[none]", "segment=identity"]
    ended = forked(
        lambda: command_line(f"dataset.image_path={listed}", f"device.base_exp_dir={folder}", *arguments),
        600,
        4 * 2**30,
    )
    assert not ended.fault, ended
    code, out, err = ended.found
    assert code == 3, err
    assert "Traceback" not in out + err + ended.said
    assert f"{len(bad)} of {len(everything)} inputs could not be used" in err.splitlines()[-1]
    failed = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == len(bad)
    for path in bad:
        assert sum(f"{images.show(path)} " in f"{line} " or f"{images.show(path)}:" in line for line in failed) == 1, (
            path
        )
    (place,) = (folder / "default").iterdir()
    dataset = Wild(str(listed))
    dataset.sources()
    assert len({dataset.name(path).casefold() for path in everything}) == len(everything)
    for path in good:
        result = place / dataset.name(path)
        assert json.loads((result / "result.json").read_text())["abs_rel"] < 0.05, path  # of views 32 pixels wide
        found = cv2.resize(
            np.load(result / "distance.npy").reshape(HEIGHT, WIDTH), (32, 16), interpolation=cv2.INTER_AREA
        )
        assert np.isfinite(found).all()
        alike = {other: np.corrcoef(found.ravel(), truth.ravel())[0, 1] for other, truth in good.items()}
        assert max(alike, key=alike.__getitem__) == path  # and not that of another
        assert alike[path] > 0.98
    assert len([p for p in place.iterdir() if p.is_dir()]) == len(good)
    after = contents(folder)
    assert {path: after.get(path) for path in before} == before
    record(
        "a batch of bad and good pictures",
        bad=len(bad),
        good=len(good),
        named_lines=len(failed),
        right_results=len(good),
        exit_code=code,
        inputs_changed=0,
        processor_seconds=round(ended.seconds, 1),
        waited=round(time.monotonic() - begun),
    )


def test_a_picture_that_lacks_scans_says_so_in_its_result(whole, tmp_path):
    """A program that reads results must be able to tell it from a good one."""
    data = whole["progressive.jpg"]
    made = {"whole": data, "cut": data[: data.rindex(b"\xff\xda")] + b"\xff\xd9"}
    for name, content in made.items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
        images.write_npy(tmp_path / f"{name}_distance.npy", np.full((HEIGHT, WIDTH), 2, np.float32))
    few = ["predict=[oracle]", "project.resolution=32", "export=[]", "refine=[none]", "segment=identity"]
    run = [f"dataset.image_path={tmp_path}/*.jpg", f"device.base_exp_dir={tmp_path}", *few]
    ended = forked(lambda: command_line(*run), 600, 4 * 2**30)
    assert (ended.fault, ended.found[0]) == ("", 0), ended
    (place,) = (tmp_path / "default").iterdir()
    results = {name: json.loads((place / name / "result.json").read_text()) for name in made}
    assert results["cut"]["input_damaged"] is True
    assert any("last scans" in note for note in results["cut"]["source"]["notes"])
    assert "input_damaged" not in json.dumps(results["whole"])
