"""A program of its own that draws triangles by OpenGL without a screen: arrays come in by stdin and go out by stdout.

Drivers bring an LLVM into their process that other libraries (Triton) crash on, so that none may be loaded into the
process that trains and renders. It is run by its path and imports nothing of this package.
"""

import io
import sys
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_VERTEX = """
#version 330
uniform mat4 matrix;
in vec3 place;
void main() { gl_Position = matrix * vec4(place, 1.0); }
"""
_FRAGMENT = """
#version 330
out uint number;
void main() { number = uint(gl_PrimitiveID) + 1u; }
"""


def paint(context: Any, points: NDArray[Any], matrices: NDArray[Any], size: tuple[int, int]) -> NDArray[np.int32]:
    """The number of the triangle that every pixel sees, -1 for none: [views, height, width]."""
    width, height = size
    program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
    numbers = context.texture(size, 1, dtype="u4")
    depth = context.depth_renderbuffer(size)
    target = context.framebuffer([numbers], depth)
    buffer = context.buffer(points.astype(np.float32).tobytes())
    array = context.vertex_array(program, [(buffer, "3f", "place")])
    found = np.empty((len(matrices), height, width), np.int32)
    target.use()
    context.enable_only(context.DEPTH_TEST)
    for i, matrix in enumerate(matrices):
        target.clear(0.0, 0.0, 0.0, 0.0)
        program["matrix"].write(matrix.T.astype(np.float32).tobytes())
        array.render(context.TRIANGLES)
        found[i] = np.frombuffer(target.read(components=1, dtype="u4"), np.int32).reshape(height, width) - 1
    for thing in (array, buffer, target, depth, numbers, program):
        thing.release()
    return found


def send(stream: IO[bytes], array: NDArray[Any]) -> None:
    """One array, whole, behind the number of its bytes."""
    whole = io.BytesIO()
    np.save(whole, array, allow_pickle=False)
    stream.write(len(whole.getbuffer()).to_bytes(8, "little") + whole.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> NDArray[Any]:
    """The next array; EOFError at the end."""
    data = stream.read(8)
    size = int.from_bytes(data, "little")
    body = stream.read(size) if len(data) == 8 else b""
    if len(data) < 8 or len(body) < size:
        raise EOFError
    found: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
    return found


def main() -> None:
    """Say what stands against it (nothing: an empty array), then answer until stdin ends."""
    inward, outward = sys.stdin.buffer, sys.stdout.buffer
    try:
        import moderngl

        settings: Any = {"backend": "egl"}
        context: Any = moderngl.create_context(330, standalone=True, **settings)
    except Exception as error:  # whatever a driver may raise
        send(outward, np.frombuffer(f"{type(error).__name__}: {error}".encode(), np.uint8))
        return
    send(outward, np.empty(0, np.uint8))
    while True:
        try:
            points, matrices, size = receive(inward), receive(inward), receive(inward)
        except EOFError:
            return
        send(outward, paint(context, points, matrices, (int(size[0]), int(size[1]))))


if __name__ == "__main__":
    main()
