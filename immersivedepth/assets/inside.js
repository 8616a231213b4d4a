// Stands inside a panorama whose distances are known: as a mesh, as points, or as round splats, drawn from the picture and
// the map of distances that the page holds. Drag turns, arrow keys and W A S D walk, Q and E go down and up, wheel zooms.
"use strict";

const VERTEX = `#version 300 es
in vec3 place;
in vec2 uv;
uniform mat3 camera;  // columns: forward, right, up
uniform vec3 eye;
uniform vec2 reach;
uniform float grain;  // the width of a vertex's surface at distance one, in pixels at depth one; 0: no points
uniform vec2 range;
out vec2 at;
void main() {
  vec3 seen = (place - eye) * camera;  // forward, right, up
  at = uv;
  float near = range.x, far = range.y;
  gl_Position = vec4(seen.y / reach.x, seen.z / reach.y, ((far + near) * seen.x - 2.0 * far * near) / (far - near), seen.x);
  gl_PointSize = clamp(grain * length(place) / max(seen.x, near), 1.0, 64.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
uniform sampler2D picture;
uniform float round_;  // 1: only the disc of a point
out vec4 colour;
void main() {
  if (round_ > 0.5 && length(gl_PointCoord - 0.5) > 0.5) discard;
  colour = vec4(textureLod(picture, at, 0.0).rgb, 1.0);
}`;

const ROWS = 256, CUT = 1.2, PACE = 0.08, STEP = 0.06;

class Inside {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { preserveDrawingBuffer: true });
    [this.yaw, this.pitch, this.fov, this.eye, this.kind] = [0, 0, 1.5, [0, 0, 0], "mesh"];
  }

  build(image, distances, columns, rows) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.at = Object.fromEntries(["camera", "eye", "reach", "grain", "range", "round_"].map((n) => [n, gl.getUniformLocation(program, n)]));
    const wide = columns + 1, places = new Float32Array(5 * wide * rows), known = new Float32Array(wide * rows);
    let far = 0;
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < wide; j++) {  // the last column is the first once more, at the other end of the picture
        const u = (j + 0.5) / columns, v = i === 0 ? 0 : i === rows - 1 ? 1 : (i + 0.5) / rows;
        const d = distances[i * columns + (j % columns)], k = i * wide + j;
        const turn = (0.5 - u) * 2 * Math.PI, tilt = (0.5 - v) * Math.PI, flat = Math.cos(tilt);
        known[k] = d;
        far = Math.max(far, d);
        places.set([d * flat * Math.cos(turn), d * flat * Math.sin(turn), d * Math.sin(tilt), u, v], 5 * k);
      }
    }
    const faces = [], points = [];
    const joined = (...corners) => {
      const d = corners.map((k) => known[k]);
      if (Math.min(...d) > 0 && Math.max(...d) < CUT * Math.min(...d)) faces.push(...corners);
    };
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        const k = i * wide + j;
        if (known[k] > 0) points.push(k);
        if (i + 1 < rows) {
          joined(k, k + 1, k + wide);
          joined(k + 1, k + wide + 1, k + wide);
        }
      }
    }
    this.far = far || 1;
    this.middle = known.filter((d) => d > 0).sort()[points.length >> 1] || 1;  // a sunlit tree outside is no measure
    this.grain = 2 * Math.PI / columns;
    this.counts = { mesh: faces.length, points: points.length };
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, places, gl.STATIC_DRAW);
    for (const [name, size, from] of [["place", 3, 0], ["uv", 2, 12]]) {
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, gl.FLOAT, false, 20, from);
    }
    this.lists = {};
    for (const [name, list] of [["mesh", faces], ["points", points]]) {
      this.lists[name] = gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.lists[name]);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new Uint32Array(list), gl.STATIC_DRAW);
    }
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.1, 0.1, 0.12, 1);
  }

  axes() {
    const [cy, sy, cp, sp] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    return { forward: [cp * cy, cp * sy, sp], right: [sy, -cy, 0], up: [-sp * cy, -sp * sy, cp] };
  }

  draw() {
    const gl = this.gl, scale = window.devicePixelRatio || 1, { forward, right, up } = this.axes();
    const [width, height] = [this.canvas.clientWidth * scale, this.canvas.clientHeight * scale].map(Math.round);
    if (!width || !height || !this.lists) return;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const tan = Math.tan(this.fov / 2), solid = this.kind === "mesh";
    gl.viewport(0, 0, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(this.at.camera, false, [...forward, ...right, ...up]);
    gl.uniform3fv(this.at.eye, this.eye);
    gl.uniform2fv(this.at.reach, [tan, tan * height / width]);
    gl.uniform2fv(this.at.range, [this.far / 2000, 4 * this.far]);
    gl.uniform1f(this.at.grain, (this.kind === "splats" ? 1.9 : 0.7) * this.grain * width / (2 * tan));
    gl.uniform1f(this.at.round_, this.kind === "splats" ? 1 : 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.lists[solid ? "mesh" : "points"]);
    gl.drawElements(solid ? gl.TRIANGLES : gl.POINTS, this.counts[solid ? "mesh" : "points"], gl.UNSIGNED_INT, 0);
  }

  turn(across, upwards) {
    this.yaw += across;
    this.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, this.pitch + upwards));
    this.draw();
  }

  walk(ahead, aside, upwards) {
    const { forward, right } = this.axes(), pace = PACE * this.middle;
    this.eye = this.eye.map((x, i) => x + pace * (ahead * forward[i] + aside * right[i] + (i === 2 ? upwards : 0)));
    this.draw();
  }

  listen() {
    let held = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => { held = null; });
    this.canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      const perPixel = this.fov / this.canvas.clientWidth;
      this.turn((event.clientX - held[0]) * perPixel, (event.clientY - held[1]) * perPixel);
      held = [event.clientX, event.clientY];
    });
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.fov = Math.max(0.3, Math.min(2.2, this.fov * Math.exp(event.deltaY * 0.001)));
      this.draw();
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const ways = { ArrowUp: [1, 0, 0], w: [1, 0, 0], ArrowDown: [-1, 0, 0], s: [-1, 0, 0], a: [0, -1, 0], d: [0, 1, 0], q: [0, 0, -1], e: [0, 0, 1] };
      if (event.key === "ArrowLeft") this.turn(STEP, 0);
      else if (event.key === "ArrowRight") this.turn(-STEP, 0);
      else if (ways[event.key]) this.walk(...ways[event.key]);
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }
}

async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

// The map of the viewer, row by row: red and green make a 16-bit logarithm, 0 is unknown and 65535 is sky.
function distances(image, about) {
  const step = Math.max(1, Math.round(image.height / ROWS)), columns = Math.floor(image.width / step), rows = Math.floor(image.height / step);
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [image.width, image.height];
  const pen = sheet.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const bytes = pen.getImageData(0, 0, image.width, image.height).data, found = new Float32Array(columns * rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const k = 4 * ((i * step + (step >> 1)) * image.width + j * step + (step >> 1)), code = 256 * bytes[k] + bytes[k + 1];
      found[i * columns + j] = code === 0 || code === 65535 ? 0 : about.nearest * Math.exp((code - 1) * about.step);
    }
  }
  return [found, columns, rows];
}

async function start(scene) {
  const inside = new Inside(document.getElementById("view")), buttons = document.getElementById("layers");
  if (!inside.gl) {
    document.getElementById("readout").textContent = "This browser has no WebGL 2.";
    return;
  }
  const most = inside.gl.getParameter(inside.gl.MAX_TEXTURE_SIZE), image = await picture(scene.pictures.image);
  if (image.width > most) throw new Error("the picture is larger than this machine's textures");
  inside.build(image, ...distances(await picture(scene.codes), scene.about));
  inside.listen();
  for (const kind of ["mesh", "points", "splats"]) {
    const button = document.createElement("button");
    button.textContent = kind;
    button.classList.toggle("on", kind === inside.kind);
    button.addEventListener("click", () => {
      for (const other of buttons.children) other.classList.toggle("on", other === button);
      inside.kind = kind;
      inside.draw();
    });
    buttons.append(button);
  }
  window.inside = inside;
  inside.draw();
  document.body.dataset.ready = "yes";
}

start(JSON.parse(document.getElementById("scene").textContent));
