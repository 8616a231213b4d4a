"""What can be trusted, where the sky is, and which pixels belong together."""

import math
from dataclasses import replace

import pytest
import torch

from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.data.synthetic import erp_maps, make_world
from immersivedepth.geometry import pinhole, segments, sphere
from immersivedepth.scene import Aligned, Geometry, Panorama, Rig
from immersivedepth.stages.project import Icosahedron
from immersivedepth.stages.segment.convex_parts import ConvexParts
from immersivedepth.stages.segment.identity import Identity
from immersivedepth.stages.segment.mask_network import Detection, TorchvisionMasks, TransformersMasks, join
from immersivedepth.stages.segment.sky import find_sky
from immersivedepth.stages.segment.valid_geometry import ValidGeometry, depth_edges, view_count

from .rooms import BALLS, BOXES, away_from_edges, geometry, noisy, panorama, truth

H = 96
AREA = sphere.solid_angles(H, 2 * H).expand(H, 2 * H)


@pytest.fixture(scope="module")
def room():
    return truth(H)


@pytest.fixture(scope="module")
def picture():
    return panorama(H)


def overlap(found, true):
    """Intersection over union of two masks, by area."""
    area = sphere.solid_angles(*true.shape).expand(true.shape)
    return float(area[found & true].sum() / area[found | true].sum().clamp_min(1e-9))


def best_overlap(labels, true):
    """That of the instance which covers a thing best."""
    return max(overlap(labels[0] == number, true) for number in labels[0][true].unique().tolist() if number)


# ---- validity --------------------------------------------------------------------------------------------------------


def test_each_doubt_is_counted(room, picture):
    distance = room.distance.clone()
    distance[30:34, 50:60] = 0
    sky = torch.zeros(1, H, 2 * H, dtype=torch.bool)
    sky[0, :8] = True
    distance[:8] = math.inf
    spread = torch.zeros(1, H, 2 * H)
    spread[0, 60:66, 100:110] = 1.0
    shown = torch.ones(1, H, 2 * H, dtype=torch.bool)
    shown[0, :, :5] = False
    given = geometry(distance, sky=sky, spread=spread)
    found = ValidGeometry(nadir=20.0)(given, replace(picture, mask=shown))
    wrong = {"unknown", "depth_edge", "disagreement", "sky", "tripod", "not_shown"}
    assert set(found.report["segment"]["distrusted"]) == wrong
    for where in (slice(30, 34), slice(0, 8)):
        assert not found.mask[0, where, 50:60].any()
    assert not found.mask[0, 60:66, 100:110].any()
    assert not found.mask[0, :, :5].any()
    assert not found.mask[0, math.ceil(H * (1 - 20 / 180)) :].any()
    assert found.mask[0, math.floor(H * (1 - 20 / 180)) - 3, 120]
    share = found.report["segment"]["distrusted"]["tripod"]
    assert share == pytest.approx((1 - math.cos(math.radians(20))) / 2, rel=0.1)  # of a cap, to whole rows


def test_depth_edges_lie_at_things_and_not_at_corners(room):
    edges = depth_edges(geometry(room.distance), 1.25)[0]
    assert not edges[away_from_edges(room, 1) & (room.instance <= 6)].any()
    empty = truth(H, furnished=False)
    assert not depth_edges(geometry(empty.distance), 1.25).any()
    ball = room.instance == 7
    outline = ball & ~(segments.components(ball[None])[0] > 0).roll(1, -1)
    assert edges[outline].any()


def test_edges_know_no_seam(room):
    shifted = depth_edges(geometry(room.distance.roll(31, -1)), 1.25)
    assert torch.equal(shifted.roll(-31, -1), depth_edges(geometry(room.distance), 1.25))


def test_views_are_counted(room, picture):
    rig = Icosahedron(resolution=16, fov=100.0)(picture).rig
    blank = torch.ones(len(rig), 1, 16, 16)
    given = geometry(room.distance, aligned=Aligned(blank, rig, blank))
    count = view_count(given)
    assert 2 <= int(count.min()) < int(count.max()) <= 8
    found = ValidGeometry(min_views=4, edge_ratio=100.0)(given, picture)
    assert torch.equal(found.mask, count >= 4)


def test_identity(room, picture):
    given = geometry(room.distance)
    assert Identity()(given, picture) is given


# ---- sky -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def street():
    maps = erp_maps(make_world("outdoor", 0), H, 2 * H)
    image = maps.image if maps.image.is_floating_point() else maps.image.float() / 255
    return maps.distance, image


def as_network(distance):
    """What a network makes of a sky: just something far."""
    sky = ~distance.isfinite()
    return torch.where(sky, 1.5 * distance[~sky].quantile(0.995), distance), sky


def test_sky_is_guessed_outdoors(street):
    distance, sky = as_network(street[0])
    found = find_sky(Geometry(distance, torch.ones_like(sky)), Panorama(street[1]))
    assert overlap(found[0], sky[0]) > 0.9


def test_sky_knows_no_seam(street):
    distance, _ = as_network(street[0])
    whole = torch.ones_like(distance, dtype=torch.bool)
    found = find_sky(Geometry(distance, whole), Panorama(street[1]))
    turned = find_sky(Geometry(distance.roll(50, -1), whole), Panorama(street[1].roll(50, -1)))
    assert (turned.roll(-50, -1) != found).float().mean() < 1e-3


def test_no_sky_in_a_room_even_under_a_white_ceiling(room):
    white = torch.full((3, H, 2 * H), 0.95)
    assert not find_sky(geometry(room.distance), Panorama(white)).any()


def test_no_ground_no_sky(picture):
    assert not find_sky(geometry(torch.zeros(H, 2 * H)), picture).any()


def test_the_sky_of_a_predictor_counts_more_than_a_guess(street):
    distance, sky = as_network(street[0])
    given = Geometry(distance, ~sky, sky=sky)
    found = ValidGeometry(sky="guess")(given, Panorama(street[1]))
    assert torch.equal(found.sky, sky)
    guessed = ValidGeometry(sky="guess")(replace(given, sky=None), Panorama(street[1]))
    assert guessed.distance[guessed.sky].isinf().all()
    assert not guessed.mask[guessed.sky].any()
    assert ValidGeometry(sky="given")(replace(given, sky=None), Panorama(street[1])).sky is None


# ---- instances -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_things_are_told_apart(room, picture, noise):
    found = ConvexParts(rows=H, patches=1500)(geometry(noisy(room.distance, noise)), picture).instances
    scores = {n: best_overlap(found.labels, room.instance == n) for n in (*range(1, 7), *BALLS, *BOXES)}
    assert min(scores.values()) > 0.75, scores
    assert len(found.classes) == int(found.labels.max()) <= 16


def test_a_ball_across_the_seam_is_one_thing_and_so_is_one_over_the_pole(room, picture):
    labels = ConvexParts(rows=H, patches=1500)(geometry(room.distance), picture).instances.labels
    seam = labels[0][room.instance == 7]
    assert len(labels[0, :, [0, -1]][(room.instance == 7)[:, [0, -1]]].unique()) == 1
    assert (seam == seam.mode().values).float().mean() > 0.9
    pole = labels[0, 0]
    assert len(pole.unique()) == 1


def test_instances_turn_with_the_panorama(room, picture):
    stage = ConvexParts(rows=H, patches=1500)
    labels = stage(geometry(room.distance), picture).instances.labels
    turned = stage(
        geometry(room.distance.roll(40, -1)), replace(picture, image=picture.image.roll(40, -1))
    ).instances.labels.roll(-40, -1)
    for number in range(1, int(labels.max()) + 1):
        thing = labels[0] == number
        if AREA[thing].sum() > 0.01 * 4 * math.pi:  # the seeds of the pieces do not turn along
            assert best_overlap(turned, thing) > 0.8


def test_paint_on_a_wall_is_no_thing():
    hits = truth(H, furnished=False)
    rays = sphere.erp_rays(H, 2 * H)
    checks = ((rays * 6).floor().sum(-1) % 2).expand(3, H, 2 * H)
    found = ConvexParts(rows=H, patches=1500)(geometry(hits.distance), Panorama(0.2 + 0.6 * checks)).instances
    assert min(best_overlap(found.labels, hits.instance == wall) for wall in range(1, 7)) > 0.95
    assert len(found.classes) <= 8  # a few pixels in the corners may be left over


def test_small_things_go_to_their_neighbours(room, picture):
    found = ConvexParts(rows=H, patches=1500, min_area=0.02)(geometry(room.distance), picture).instances
    share = [float(AREA[found.labels[0] == n].sum()) / (4 * math.pi) for n in range(1, int(found.labels.max()) + 1)]
    assert min(share) >= 0.02
    assert (found.labels > 0).all()


@pytest.mark.slow
def test_things_in_furnished_synthetic_rooms():
    maps = erp_maps(make_world("room", 3), 256, 512)
    image = maps.image if maps.image.is_floating_point() else maps.image.float() / 255
    labels = ConvexParts().labels(Geometry(maps.distance, maps.distance.isfinite()), Panorama(image))
    things = [maps.instance[0] == n for n in maps.instance.unique().tolist() if n]
    area = sphere.solid_angles(256, 512).expand(256, 512)
    large = [t for t in things if area[t].sum() > 0.002 * 4 * math.pi]
    scores = torch.tensor([best_overlap(labels, t) for t in large])
    assert scores.mean() > 0.5  # 0.58 when this was written, and 0.57 of the things above one half
    assert (scores > 0.5).float().mean() > 0.5


def test_nothing_known_nothing_found(picture):
    found = ConvexParts(rows=H)(geometry(torch.zeros(H, 2 * H)), picture).instances
    assert found.classes == ()
    assert (found.labels == 0).all()


# ---- mask networks ---------------------------------------------------------------------------------------------------


def in_views(rig):
    rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)
    from .rooms import Room

    return Room().trace(rays).instance


def test_detections_of_many_views_become_things_on_the_sphere(room, picture):
    rig = Icosahedron(resolution=96)(picture).rig
    seen = in_views(rig)
    detections = [
        Detection(view, seen[view] == thing, 3 if thing in BALLS else 4, 0.5 + 0.01 * thing)
        for view in range(len(rig))
        for thing in (*BALLS, *BOXES)
        if (seen[view] == thing).sum() > 8
    ]
    found = join(detections, rig, (H, 2 * H), {3: "ball", 4: "box"})
    assert sorted(found.classes) == [3, 3, 3, 4]
    assert found.names == {3: "ball", 4: "box"}
    for thing in (*BALLS, *BOXES):
        assert best_overlap(found.labels, room.instance == thing) > 0.85
    assert max(found.scores) == pytest.approx(0.6)


def test_the_surer_thing_lies_on_top():
    rig = Rig(pinhole.look_along(torch.tensor([[1.0, 0, 0]])), torch.ones(1), 16)
    everything, half = torch.ones(16, 16, dtype=torch.bool), torch.ones(16, 16, dtype=torch.bool)
    half[:, :8] = False
    found = join([Detection(0, half, 1, 0.9), Detection(0, everything, 2, 0.6)], rig, (32, 64), {})
    assert sorted(zip(found.classes, found.scores, strict=True)) == [(1, 0.9), (2, 0.6)]
    right = found.labels[0, 16, 36]
    assert found.classes[int(right) - 1] == 1


def test_no_detections_no_things(picture):
    rig = Icosahedron(resolution=16)(picture).rig
    found = join([], rig, (H, 2 * H), {})
    assert found.classes == ()
    assert (found.labels == 0).all()


def test_a_transformers_model_in_a_local_folder(tmp_path, room, picture):
    transformers = pytest.importorskip("transformers")
    backbone = transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone, num_queries=4, decoder_layers=2, encoder_layers=1, hidden_dim=32, feature_size=32,
        mask_feature_size=32, dim_feedforward=16, encoder_feedforward_dim=16, num_attention_heads=2, num_labels=3,
        id2label={0: "ball", 1: "box", 2: "wall"},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    transformers.Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    stage = TransformersMasks(str(tmp_path), project=Icosahedron(resolution=48), least_score=0.0)
    found = stage(geometry(room.distance), picture)
    assert found.instances.labels.shape == (1, H, 2 * H)
    assert set(found.instances.names.values()) <= {"ball", "box", "wall"}
    assert len(found.instances.scores) == len(found.instances.classes)


def test_models_must_be_pinned_or_here(room, picture):
    with pytest.raises(ConfigError, match="segment.revision"):
        TransformersMasks("facebook/mask2former")(geometry(room.distance), picture)
    with pytest.raises(WeightsError, match="segment.weights=nowhere.pth not found"):
        TorchvisionMasks("nowhere.pth", project=Icosahedron(resolution=16))(geometry(room.distance), picture)


@pytest.mark.slow
def test_mask_rcnn_with_weights_from_a_file(tmp_path, picture):
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    torch.manual_seed(0)
    torch.save(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict(), tmp_path / "w.pth")
    stage = TorchvisionMasks(str(tmp_path / "w.pth"), project=Icosahedron(resolution=64), least_score=0.0)
    found = list(stage._look(picture.image[None, :, :64, :64]))
    assert found
    assert all(one.mask.shape == (64, 64) and one.kind in stage._names for one in found)
    assert len(join(found, stage.project(picture).rig, (H, 2 * H), stage._names).classes) >= 1
