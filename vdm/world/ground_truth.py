"""What is exactly true of a clip: flow, occlusion, depth, identity, boxes and cameras.

Everything follows from the matrices of the layers; nothing is estimated from pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int8

from vdm.world import attributes as a
from vdm.world.exact import sincos
from vdm.world.sampling import num_frames_of
from vdm.world.scenes import Scene
from vdm.world.shapes import is_inside, outline, reach
from vdm.world.visibility import to_object, visible_fraction


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of a clip of ``t`` frames and its ``t - 1`` pairs, in pixels of its frames.

    Args:
        forward_flow: Displacement (x, y) of every pixel of frame k to frame k + 1.
        backward_flow: Displacement of every pixel of frame k + 1 to frame k.
        forward_occluded: Whether what a pixel of frame k shows is hidden or outside in frame k + 1.
        backward_occluded: The same from frame k + 1 to frame k.
        identity: 0 on the plane, k + 1 on object k.
        depth: Distance from the camera along its axis; the plane is at 1 in frame 0.
        visible: Share of each object's area that can be seen.
        boxes: Left, top, right, bottom of each object, also where it is hidden.
        intrinsics: Camera matrix; one unit of length is the width of frame 0 on the plane.
        camera_from_world: Rigid motion from the world to the camera at each frame.
    """

    forward_flow: Float[np.ndarray, "pairs h w 2"]
    backward_flow: Float[np.ndarray, "pairs h w 2"]
    forward_occluded: Bool[np.ndarray, "pairs h w"]
    backward_occluded: Bool[np.ndarray, "pairs h w"]
    identity: Int8[np.ndarray, "t h w"]
    depth: Float[np.ndarray, "t h w"]
    visible: Float[np.ndarray, "t objects"]
    boxes: Float[np.ndarray, "t objects 4"]
    intrinsics: Float[np.ndarray, "3 3"]
    camera_from_world: Float[np.ndarray, "t 4 4"]


def ground_truth(
    scene: Scene, size: int = a.SIZE, num_frames: int | None = None, fps: float = a.FPS
) -> GroundTruth:
    """The ground truth of ``render(scene, size, num_frames, fps)``.

    Args:
        scene: The scene.
        size: Height and width in pixels.
        num_frames: Frames; by default those of the split.
        fps: Frames per second.

    Raises:
        ValueError: If the size, count or rate is not positive.
    """
    num_frames = num_frames_of(scene.split) if num_frames is None else num_frames
    if size < 1 or num_frames < 1 or not fps > 0:
        raise ValueError(
            f"got size={size}, num_frames={num_frames}, fps={fps}, expected all positive"
        )
    frame = np.arange(num_frames) * (a.FPS / fps)
    zoom = size / a.SIZE
    matrices = layer_matrices(scene, frame)
    line = (np.arange(size) + 0.5) / zoom - 0.5
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(1, -1, 2)
    pixels = np.repeat(grid, num_frames, axis=0)
    identity = visible_layer(scene, matrices, pixels)
    flows, hidden = [], []
    for source, target in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        moved = carry(matrices[:, source], matrices[:, target], identity[source], pixels[source])
        seen = visible_layer(scene, matrices[:, target], moved)
        # Half a pixel of this frame size beyond the outer pixel centres is outside.
        inside = (moved >= line[0]) & (moved <= line[-1])
        flows.append(((moved - pixels[source]) * zoom).reshape(-1, size, size, 2))
        hidden.append(~((seen == identity[source]) & inside.all(-1)).reshape(-1, size, size))
    z = scene.camera.position(frame)[2]
    depths = np.array([1.0, *(thing.depth for thing in scene.objects)])
    depth = depths[identity] - z[:, None]
    return GroundTruth(
        forward_flow=flows[0],
        backward_flow=flows[1],
        forward_occluded=hidden[0],
        backward_occluded=hidden[1],
        identity=identity.reshape(-1, size, size),
        depth=depth.reshape(-1, size, size),
        visible=visible_fraction(scene, frame),
        boxes=(_boxes(scene, frame) + 0.5) * zoom - 0.5,
        intrinsics=intrinsics(size),
        camera_from_world=camera_from_world(scene, frame),
    )


def layer_matrices(
    scene: Scene, frame: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "layers t 3 3"]:
    """Matrices from each layer's own coordinates to pixels of a 64-pixel frame, the plane first.

    Args:
        scene: The scene.
        frame: Frames counted at 8 a second.
    """
    layers = [None, *range(len(scene.objects))]
    return np.stack([scene.matrix(layer, frame) for layer in layers])


def intrinsics(size: int) -> Float[np.ndarray, "3 3"]:
    """The pinhole camera: focal length and principal point in pixels."""
    middle = (size - 1) / 2
    return np.array([[size, 0.0, middle], [0.0, size, middle], [0.0, 0.0, 1.0]])


def camera_from_world(scene: Scene, frame: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t 4 4"]:
    """Rigid motions that take world points to the camera's coordinates: it never turns.

    Args:
        scene: The scene.
        frame: Frames counted at 8 a second.
    """
    x, y, z = scene.camera.position(np.asarray(frame, dtype=np.float64))
    result = np.tile(np.eye(4), (len(x), 1, 1))
    result[:, :3, 3] = -np.stack([x / a.SIZE, y / a.SIZE, z], axis=-1)
    return result


def visible_layer(
    scene: Scene, matrices: Float[np.ndarray, "layers t 3 3"], places: Float[np.ndarray, "t p 2"]
) -> Int8[np.ndarray, "t p"]:
    """The nearest layer at each place."""
    result = np.zeros(places.shape[:2], dtype=np.int8)
    for layer, thing in enumerate(scene.objects):
        matrix = matrices[layer + 1]
        dx, dy = places[..., 0] - matrix[:, :1, 2], places[..., 1] - matrix[:, 1:2, 2]
        radius = np.hypot(matrix[:, :1, 0], matrix[:, 1:2, 0])
        radius *= a.RADII[thing.size] * (reach(thing.shape) + 1e-6)
        near = np.nonzero(dx * dx + dy * dy < radius * radius)
        u, v = to_object(scene, layer, matrix[near[0]], places[near][:, None])
        inside = is_inside(thing.shape, u[:, 0], v[:, 0])
        result[near[0][inside], near[1][inside]] = layer + 1
    return result


def carry(
    sources: Float[np.ndarray, "layers t 3 3"],
    targets: Float[np.ndarray, "layers t 3 3"],
    identity: Int8[np.ndarray, "t p"],
    places: Float[np.ndarray, "t p 2"],
) -> Float[np.ndarray, "t p 2"]:
    """Where each place goes with the layer that it shows."""
    moved = np.empty_like(places)
    for layer, (source, target) in enumerate(zip(sources, targets, strict=True)):
        step = target @ np.linalg.inv(source)
        here = identity == layer
        cosine, sine = step[:, :1, 0], step[:, 1:2, 0]
        x, y = places[..., 0], places[..., 1]
        np.copyto(moved[..., 0], cosine * x - sine * y + step[:, :1, 2], where=here)
        np.copyto(moved[..., 1], sine * x + cosine * y + step[:, 1:2, 2], where=here)
    return moved


def _boxes(scene: Scene, frame: Float[np.ndarray, " t"]) -> Float[np.ndarray, "t objects 4"]:
    """Left, top, right, bottom in pixels of a 64-pixel frame."""
    boxes = np.empty((len(frame), len(scene.objects), 4))
    for layer, thing in enumerate(scene.objects):
        centre, _ = scene.centres(layer, frame)
        scale = scene.to_frame(frame, thing.depth)[0] * thing.pose(frame).radius
        if thing.shape in ("circle", "ring"):
            reach = np.ones((len(frame), 2))
            low, high = -reach, reach
        else:
            sine, cosine = (value[:, None] for value in sincos(thing.pose(frame).angle))
            u, v = outline(thing.shape).T
            corners = np.stack([cosine * u - sine * v, sine * u + cosine * v], axis=-1)
            low, high = corners.min(axis=1), corners.max(axis=1)
        boxes[:, layer, :2] = centre + scale[:, None] * low
        boxes[:, layer, 2:] = centre + scale[:, None] * high
    return boxes
