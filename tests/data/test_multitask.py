"""Views in many tasks: layouts, splits, values, changes of size, and the maker."""

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images, transforms
from immersivedepth.data.making import MakeData
from immersivedepth.data.multitask import MultiTask, Part, Views, common_views, read_splits

TASKS = ("rgb", "depth_zbuffer")
LAYOUTS = {
    "omnidata": ("{task}/hm3d/house/", "hm3d/house"),
    "taskonomy": ("{task}/house/", "house"),
    "replica": ("house/{task}/", "house"),
    "replica_gso": ("house/3/{task}/", "house-3"),
    "hypersim": ("house/taskonomized/cam_00/{task}/", "house-cam_00"),
    "blended_mvs": ("house/{task}/", "house"),
}


def write(root, folder, task, point=0, view=0, size=(32, 32)):
    path = root / folder.format(task=task) / f"point_{point}_view_{view}_domain_{task}.png"
    if task.startswith("depth"):
        images.write_map_png(path, torch.full((1, *size), 2.0), 1 / 512)
    else:
        images.write_png(path, torch.full((3, *size), 0.5))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path, layout):
    folder, building = LAYOUTS[layout]
    for task in TASKS:
        write(tmp_path, folder, task)
        write(tmp_path, folder, task, point=1, view=2)
    found = common_views(tmp_path, layout, TASKS)
    assert set(found) == {(building, 0, 0), (building, 1, 2)}
    assert all(set(files) == set(TASKS) for files in found.values())


def test_only_views_that_all_tasks_have(tmp_path):
    folder = LAYOUTS["taskonomy"][0]
    for task in TASKS:
        write(tmp_path, folder, task)
    write(tmp_path, folder, "rgb", point=5)
    (tmp_path / "rgb/house/notes.txt").write_text("no view")
    assert set(common_views(tmp_path, "taskonomy", TASKS)) == {("house", 0, 0)}


def test_forbidden_buildings_of_taskonomy(tmp_path):
    for task in TASKS:
        write(tmp_path, "{task}/mosquito/", task)
    assert not common_views(tmp_path, "taskonomy", TASKS)


def test_bad_scenes_and_the_mask_of_blended_mvs(tmp_path):
    for scene in ("house", "5bf21799d43923194842c001"):
        write(tmp_path, scene + "/blended_images/", "rgb")  # not a task
        write(tmp_path, scene + "/{task}/", "rgb")
        write(tmp_path, scene + "/mask_valid_depth/", "mask_valid_depth")
        write(tmp_path / "starter", "{task}/blended_mvg/" + scene + "/", "rgb")
    found = common_views(tmp_path, "blended_mvs", ("rgb", "mask_valid"))
    assert {view: sorted(files) for view, files in found.items()} == {("house", 0, 0): ["mask_valid", "rgb"]}
    assert "mask_valid" in Views(MultiTask(size=32), list(found.values()), False).sample(0, np.random.default_rng(0))
    assert set(common_views(tmp_path / "starter", "omnidata", ("rgb",))) == {("blended_mvg/house", 0, 0)}


def test_points_that_hypersim_filters_out(tmp_path):
    for point in (1, 2, 30):
        write(tmp_path, LAYOUTS["hypersim"][0], "rgb", point)
    path = tmp_path / "house/taskonomized/cam_00/filtered_points.json"
    path.write_text('["1", "30"]')
    assert set(common_views(tmp_path, "hypersim", ("rgb",))) == {("house-cam_00", 2, 0)}
    path.write_text('{"a": [')
    with pytest.raises(InputError, match="filtered_points.json: expected a list"):
        common_views(tmp_path, "hypersim", ("rgb",))


def test_lists_of_splits_name_buildings_without_data_set_and_camera(tmp_path):
    write(tmp_path / "o", "{task}/hm3d/house/", "rgb")
    write(tmp_path / "h", "{task}".join(("scene/taskonomized/cam_00/", "/")), "rgb")
    (tmp_path / "a.csv").write_text("id,train,val,test\nhouse,1,0,0\nscene,0,1,0\n")
    for root, layout, split in (("o", "omnidata", "train"), ("h", "hypersim", "val")):
        data = MultiTask({"a": Part(str(tmp_path / root), layout, str(tmp_path / "a.csv"))}, ("rgb",))
        assert {s: s == split for s in ("train", "val")} == {s: bool(data.samples(s)) for s in ("train", "val")}


def test_without_lists_validation_says_that_it_repeats_training(tmp_path, caplog):
    write(tmp_path, "{task}/house/", "rgb")
    data = MultiTask({"a": Part(str(tmp_path), "taskonomy")}, ("rgb",))
    data.samples("train")
    assert not caplog.records
    data.samples("val")
    assert [r.getMessage() for r in caplog.records] == [
        "dataset.parts.a.splits has no value: val repeats the buildings of training"
    ]


def test_published_splits_end_their_lines_with_a_carriage_return(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,train,val,test\rone,1,0,0\rtwo,0,1,1\r")
    assert read_splits(path) == {"train": {"one"}, "val": {"two"}, "test": {"two"}}
    path.write_bytes(b"id,train\rone,1\r")
    with pytest.raises(InputError, match="a.csv:2: expected the columns"):
        read_splits(path)
    with pytest.raises(InputError, match="does not exist"):
        read_splits(tmp_path / "none.csv")


def test_each_data_set_makes_the_same_share_of_the_training(tmp_path):
    for name, count in (("a", 1), ("b", 4)):
        for task in TASKS:
            for point in range(count):
                write(tmp_path / name, "{task}/house/", task, point)
    parts = {name: Part(str(tmp_path / name), "taskonomy") for name in ("a", "b")}
    views = MultiTask(parts, TASKS).samples("train")
    assert views.weights.tolist() == pytest.approx([1.0, 0.25, 0.25, 0.25, 0.25])
    assert MultiTask(parts, TASKS).samples("val").weights is None


def test_each_data_set_of_one_root_makes_the_same_share(tmp_path):
    """Two data sets with a building of the same name: both are there, and weigh the same."""
    for name, count in (("hm3d", 1), ("replica", 3)):
        for point in range(count):
            write(tmp_path, "{task}/" + name + "/house/", "rgb", point)
    views = MultiTask({"a": Part(str(tmp_path))}, ("rgb",)).samples("train")
    assert views.weights.tolist() == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3])


# ---- values and changes ----------------------------------------------------------------------------------------------


def test_depth_of_16_bits(tmp_path):
    steps = torch.tensor([[[0, 512, 8000, 65534, 65535]]]).double().expand(1, 4, 5)
    path = images.write_map_png(tmp_path / "a.png", steps, 1.0)
    depth = transforms.read_task(path, "depth_zbuffer")
    assert depth[0, 0].tolist() == pytest.approx([0.0, 1.0, 15.625, 65534 / 512, 0.0])
    assert transforms.legacy_depth(depth)[0, 0].tolist() == pytest.approx([0, 512 / 8000, 1.0, 1.0, 0.0])


def test_labels_edges_and_curvature(tmp_path):
    colours = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    path = images.write_png(tmp_path / "a.png", colours)
    assert int(transforms.read_task(path, "segment_semantic")[0, 0, 0]) == 1 * 65536 + 2 * 256 + 3
    assert transforms.read_task(path, "principal_curvature").shape == (2, 4, 4)
    edges = images.write_map_png(tmp_path / "b.png", torch.tensor([[[100.0, 60000.0]]]), 1.0)
    assert transforms.read_task(edges, "edge_texture")[0, 0].tolist() == pytest.approx([100 / 65535, 0.25])
    with pytest.raises(InputError, match="reshading is not a task"):
        transforms.read_task(path, "reshading")


def test_missing_places_grow_by_two_pixels():
    values = torch.ones(1, 9, 9)
    values[0, 4, 4] = 0
    gone = ~transforms.build_mask(values, 0.0)
    want = torch.zeros(1, 9, 9, dtype=torch.bool)
    want[0, 2:7, 2:7] = True
    assert torch.equal(gone, want)
    colours = torch.full((3, 9, 9), transforms.EMPTY_NORMAL)
    colours[0] += 0.1  # one channel differs: it is a normal
    assert transforms.build_mask(colours, transforms.EMPTY_NORMAL).all()


def test_a_missing_place_spoils_its_block():
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    valid[0, 5, 1] = False
    blocks = transforms.make_valid_mask(valid)
    assert (~blocks).sum() == 16
    assert not blocks[0, 4:8, 0:4].any()
    assert transforms.make_valid_mask(torch.ones(1, 7, 9, dtype=torch.bool)).shape == (1, 7, 9)


def test_a_mask_of_its_own_does_not_save_what_is_beside_a_hole():
    depth = torch.ones(1, 16, 16)
    depth[0, 8, 8] = 0
    views = {"mask_valid": torch.ones(1, 16, 16), "depth_zbuffer": depth}
    assert torch.equal(transforms.valid_of(views), transforms.build_mask(depth, 0.0))
    views["mask_valid"][0, 0, 0] = 0
    assert not transforms.valid_of(views)[0, 0, 0]
    assert transforms.valid_of({"rgb": torch.rand(3, 4, 4)}).all()


def test_training_looks_at_whole_blocks_and_validation_at_every_known_pixel(tmp_path):
    depth = torch.full((1, 32, 32), 2.0)
    depth[0, 9, 9] = 65535 / 512
    write(tmp_path, "{task}/house/", "rgb")
    images.write_map_png(tmp_path / "depth_zbuffer/house/point_0_view_0_domain_depth_zbuffer.png", depth, 1 / 512)
    parts = {"a": Part(str(tmp_path), "taskonomy")}
    data = MultiTask(parts, TASKS, 32, mirror=False, augment=False)
    middle = next(seed for seed in range(100) if np.random.default_rng(seed).random() < 0.4)
    train = data.samples("train").sample(0, np.random.default_rng(middle))["valid"][0]
    val = data.samples("val").sample(0, np.random.default_rng(0))["valid"][0]
    assert (~val).sum() == 25
    assert (~train).sum() == 64
    assert torch.equal(train, transforms.make_valid_mask(val[None])[0])
    old = MultiTask(parts, TASKS, 32, legacy_depth=True).samples("val").sample(0, np.random.default_rng(0))
    assert float(old["depth_zbuffer"].max()) == pytest.approx(2.0 * 512 / 8000)


def test_batches_at_random_sizes():
    sizes = (256, 320, 384, 448, 512)
    seen = set()
    for seed in range(300):
        height, width = transforms.drawn_size(sizes, np.random.default_rng(seed), 1.5)
        assert {height, width} <= set(sizes)
        assert max(height, width) <= 1.5 * min(height, width)
        seen.add((height, width))
    assert len(seen) > 15
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    place = (x + 100 * y).expand(2, 1, -1, -1)
    shapes = set()
    for seed in range(20):
        out = transforms.at_random_size(
            {"depth_zbuffer": place, "valid": place > 500, "normal": place.expand(-1, 3, -1, -1)},
            (32, 64),
            np.random.default_rng(seed),
        )
        assert torch.equal(out["valid"], out["depth_zbuffer"] > 500)
        assert torch.equal(out["normal"][:, 2:], out["depth_zbuffer"])
        shapes.add(tuple(out["depth_zbuffer"].shape))
    assert shapes == {(2, 1, 32, 32), (2, 1, 32, 64), (2, 1, 64, 32), (2, 1, 64, 64)}


def test_pictures_are_averaged_and_nothing_else(tmp_path):
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    views = {"rgb": checks.float().expand(3, 8, 8), "segment_semantic": checks[None].long() * 7}
    small = transforms.resized(views, (4, 4))
    assert torch.allclose(small["rgb"], torch.full((3, 4, 4), 0.5), atol=0.2)
    assert set(small["segment_semantic"].unique().tolist()) <= {0, 7}
    assert small["segment_semantic"].dtype == torch.int64


def test_the_mirror_turns_normals():
    normal = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    normal[:, :4, :4] = transforms.EMPTY_NORMAL
    out = transforms.mirrored({"normal": normal, "mask_valid": normal[:1]})
    assert torch.allclose(out["normal"][0, 8:], 1 - normal.flip(-1)[0, 8:])
    assert torch.equal(out["normal"][1:], normal.flip(-1)[1:])
    assert torch.allclose(out["normal"][0, :4, -4:], torch.tensor(transforms.EMPTY_NORMAL))
    assert torch.equal(out["mask_valid"], normal[:1].flip(-1))
    beside = out["normal"][0, :4, -6:-4]  # within the two pixels by which holes grow
    assert torch.allclose(beside, 1 - normal.flip(-1)[0, :4, -6:-4])


def test_all_tasks_of_a_view_change_together():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    place = (x + 100 * y)[None]
    kinds = set()
    for seed in range(30):
        views = {"depth_zbuffer": place, "normal": place.expand(3, -1, -1), "valid": place}
        out = transforms.fitted(views, (20, 20), np.random.default_rng(seed), training=True)
        assert all(torch.equal(out["depth_zbuffer"], value[:1]) for value in out.values())
        assert out["valid"].shape == (1, 20, 20)
        kinds.add(tuple(out["valid"][0, 0, :3].tolist()))
    assert len(kinds) > 5
    middle = transforms.fitted({"valid": place}, (20, 20), np.random.default_rng(0), training=False)["valid"]
    assert float(middle[0, 0, 0]) == 11 + 100  # every second pixel of the 40 in the middle of 60


def test_pictures_are_taken_by_other_cameras():
    rgb = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    outs = [transforms.taken(rgb, np.random.default_rng(seed)) for seed in range(60)]
    same = sum(torch.equal(out, rgb) for out in outs)
    assert 10 < same < 45
    assert all(0 <= out.min() <= out.max() <= 1 for out in outs)
    edge = torch.zeros(3, 9, 9)
    edge[:, :, 4:] = 0.5

    class Fixed:  # only sharpened
        def __init__(self):
            self.values = iter([0.0, 0.49, 0.9, 0.9, 0.9, 0.9])

        def random(self):
            return next(self.values)

    sharp = transforms.taken(edge, Fixed())
    assert float(sharp[0, 4, 4]) == pytest.approx(0.5 + 0.3 * 0.125, abs=1e-6)  # a quarter of the step is blurred away
    flat = torch.full((3, 24, 24), 0.4)
    assert all(torch.allclose(transforms.taken(flat, np.random.default_rng(s)), flat, atol=1e-5) for s in range(20))


# ---- made data -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("omnidata")
    MakeData("omnidata", str(root), count=10, size=48, workers=1)()
    return root


def test_made_data_are_the_real_layout(made):
    tasks = ("rgb", "depth_zbuffer", "depth_euclidean", "normal", "mask_valid", "segment_instance", "point_info")
    views = common_views(made, "omnidata", tasks)
    assert len(views) == 10
    assert ("synthetic/world0000", 1, 3) in views
    assert b"\r" in (made / "splits.csv").read_bytes()
    assert read_splits(made / "splits.csv")["train"] == {"world0000", "world0001"}


def test_maps_of_made_data_agree_with_each_other(made):
    data = MultiTask({"a": Part(str(made))}, ("rgb", "depth_zbuffer", "depth_euclidean", "normal", "mask_valid"), 48)
    views = data.samples("val")
    assert isinstance(views, Views)
    for index in range(3):
        s = views.sample(index, np.random.default_rng(0))
        valid = s["valid"][0]
        z, r = s["depth_zbuffer"][0], s["depth_euclidean"][0]
        assert (r >= z - 2 / 512)[valid].all()
        middle = (r / z)[23:25, 23:25][valid[23:25, 23:25]]
        assert middle.max() < 1.01  # along the axis both are the same
        normal = 2 * s["normal"] - 1
        length = normal.norm(dim=0)[valid]
        assert (length - 1).abs().max() < 0.02  # eight bits
        assert normal[2][valid].median() > 0  # towards the camera


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="dataset.parts is empty"):
        MultiTask().samples("train")
    with pytest.raises(InputError, match="set dataset.parts.a.root"):
        MultiTask({"a": Part(str(tmp_path / "none"))}).samples("train")
    for task, size in (("rgb", (32, 32)), ("depth_zbuffer", (16, 16))):
        write(tmp_path, "{task}/x/house/", task, size=size)
    views = MultiTask({"a": Part(str(tmp_path))}, TASKS).samples("train")
    with pytest.raises(InputError, match="its tasks differ in size"):
        views.sample(0, np.random.default_rng(0))
