"""What distill-3d provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _parts(module: str, modality: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.three_d.{module}:{target}", modality=modality)
        for name, (target, summary) in parts.items()
    ]


def _method(name: str, summary: str, target: str, paper: str, modality: str = "3d") -> Component:
    module = name.replace("-", "_")
    return Component(
        name=name,
        summary=summary,
        target=f"distill.three_d.papers.{module}:{target}",
        modality=modality,
        paper=paper,
        claim=f"distill.three_d.claims.{module}:claim" if name in CLAIMED else "",
    )


CLAIMED: tuple[str, ...] = ("cfd", "dsd", "headartist", "lidar-dpo", "lyra", "mdt-dist", "soar", "sparse3d")
"""Methods whose claims can be measured."""
PAPERS = (
    ("sds", "A scene from the scores of a teacher of pictures", "SDS", "2209.14988"),
    ("vsd", "Score distillation whose reference is an adapter that knows the scene", "VSD", "2305.16213"),
    ("cfd", "Score distillation as a flow, under noise that lies on the scene's surface", "CFD", "2501.05445"),
    ("dsd", "Score distillation along the sampling path of a seed", "DSD", "2412.06780"),
    ("headartist", "A head from one teacher's two opinions, with landmarks", "HeadArtist", "2312.07539"),
    (
        "gaussian-splatting",
        "A scene of Gaussians fitted to pictures with known cameras",
        "GaussianSplatting",
        "2308.04079",
    ),
    (
        "lidar-dpo",
        "Completion of scans, pulled by better completions and pushed by worse",
        "LidarDPO",
        "2504.11447",
        "lidar",
    ),
    (
        "mdt-dist",
        "Flows of 3D latents in one or two steps, by an average velocity that teaches itself",
        "MDTDist",
        "2509.04406",
    ),
    (
        "soar",
        "A scene from one side, whose hidden parts a teacher fills in",
        "SOAR",
        "2410.23800",
    ),
    (
        "sparse3d",
        "A scene from few pictures, moved by what a teacher knows beyond the category",
        "Sparse3D",
        "2308.14078",
    ),
    (
        "lyra",
        "Latents of views into Gaussians, taught by the same latents as pictures",
        "Lyra",
        "2509.19296",
    ),
)


@hookimpl
def distill_modalities() -> Sequence[Component]:
    clouds = {"lidar": ("PointClouds", "Clouds of points, ragged, in metres around a sensor, written as PLY")}
    scenes = {"3d": ("ThreeD", "Scenes of Gaussians, written as PLY, shown as turntables")}
    return [*_parts("modality", "3d", scenes), *_parts("lidar_views", "lidar", clouds)]


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    points = {"point-transformer": ("PointDenoiser", "A compact transformer that completes scans, on any machine")}
    return [
        *_parts("gaussians", "3d", {"gaussians": ("GaussianScene", "A scene of Gaussians that a run optimises")}),
        *_parts("points", "lidar", points),
        *_parts(
            "posed",
            "image",
            {
                "posed-pictures": ("PosedPictures", "A denoiser of pictures that is told each picture's camera"),
                "views-teacher": ("ViewsTeacher", "A small trained DiT: 32x32 views of eight objects, by camera"),
            },
        ),
    ]


@hookimpl
def distill_lenses() -> Sequence[Component]:
    clouds = {
        "range-image": ("RangeImage", "Clouds as the sensor sees them: [B, 1, H, W]"),
        "birds-eye": ("BirdsEye", "Clouds from above: [B, 1, N, N]"),
    }
    return [
        *_parts("render", "3d", {"render": ("Render", "Scenes of Gaussians as pictures, on any machine")}),
        *_parts("lidar_views", "lidar", clouds),
    ]


@hookimpl
def distill_datasets() -> Sequence[Component]:
    pictures = {
        "mesh-views": ("MeshViews", "True views of a mesh, with their cameras"),
        "object-views": ("ObjectViews", "True views of several meshes, labelled, with their cameras"),
        "posed-photos": ("PosedPhotos", "A folder of photos with cameras in transforms.json"),
    }
    scenes = {
        "surface-scenes": ("SurfaceScenes", "Gaussians on the surfaces of shapes, turned at random"),
        "splat-folder": ("SplatFolder", "A folder of scenes as PLY files"),
        "cameras": ("CameraData", "Cameras alone, around a scene or before it"),
    }
    scans = {"lidar": ("Lidar", "Windows of LiDAR scans: complete clouds, and what a sparse scan sees of them")}
    return [
        *_parts("datasets", "image", pictures), *_parts("datasets", "3d", scenes), *_parts("lidar", "lidar", scans),
    ]  # fmt: skip


@hookimpl
def distill_metrics() -> Sequence[Component]:
    clouds = {
        "chamfer": ("Chamfer", "Mean distance to the nearest point, both ways, in metres; lower is better"),
        "bev-divergence": ("BevDivergence", "Jensen-Shannon divergence from above, in bits; lower is better"),
        "voxel-iou": ("VoxelIoU", "Occupied voxels in common; higher is better"),
    }
    return _parts("metrics_points", "lidar", clouds)


@hookimpl
def distill_trajectories() -> Sequence[Component]:
    pairs = {"completion-pairs": ("CompletionPairs", "Two completions of each scan, ranked by a metric")}
    views = {
        "scene-view": ("SceneView", "Views of a scene, with noise that belongs to it"),
        "directed-view": ("DirectedView", "Views of a scene that say from where it is seen: words, landmarks"),
    }
    return [
        *_parts("trajectories", "3d", views),
        *_parts("lidar_pairs", "lidar", pairs),
    ]


@hookimpl
def distill_losses() -> Sequence[Component]:
    pairs = {
        "preference": ("Preference", "Completions to the teacher's law, tilted to the better ones: lidar-dpo"),
        "denoise-target": ("DenoiseTarget", "Denoising of one of an event's targets"),
    }
    views = {
        "photometric": ("Photometric", "Views against pictures: absolute, and SSIM"),
        "view-score": ("ViewScore", "Score distillation under noise and levels of the scene's own: cfd"),
        "self-score": ("SelfScore", "A teacher's guided opinion against its own plain one: headartist"),
        "seeded-score": ("SeededScore", "The steps of a seed's sampling path, taken at a view: dsd"),
    }
    return [
        *_parts("losses", "3d", views),
        *_parts("lidar_pairs", "lidar", pairs),
    ]


@hookimpl
def distill_methods() -> Sequence[Component]:
    measured = Component(
        name="six-views",
        summary="SOAR, measured on six pictures of a mesh and the teacher that ships",
        target="distill.three_d.papers.soar:SOAR",
        modality="3d",
        paper="2410.23800",
        claim="distill.three_d.claims.six_views:claim",
    )
    return [*(_method(*paper) for paper in PAPERS), measured]
