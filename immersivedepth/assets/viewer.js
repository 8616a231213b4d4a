// Looks around in equirectangular pictures: drag or arrow keys to turn, wheel or +/- to zoom, and what lies under the
// pointer is read out. World axes: +x forward (the middle of the picture), +y left, +z up.
"use strict";

const VERTEX = `#version 300 es
in vec2 corner;
out vec2 at;
void main() { at = corner; gl_Position = vec4(corner, 0.0, 1.0); }`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
out vec4 colour;
uniform sampler2D picture;
uniform mat3 camera;  // columns: forward, right, up
uniform vec2 reach;   // half the width and height of the view at depth one
void main() {
  vec3 ray = camera * vec3(1.0, at * reach);
  vec2 uv = vec2(0.5 - atan(ray.y, ray.x) / 6.283185307179586,
                 0.5 - atan(ray.z, length(ray.xy)) / 3.141592653589793);
  colour = vec4(textureLod(picture, uv, 0.0).rgb, 1.0);
}`;

const WIDEST = 2.2, NARROWEST = 0.15, STEP = 0.06;  // radians

class Viewer {
  constructor(canvas, readout, scene) {
    this.canvas = canvas;
    this.readout = readout;
    this.scene = scene;
    this.yaw = 0;
    this.pitch = 0;
    this.fov = 1.6;
    this.textures = {};
    this.gl = canvas.getContext("webgl2", { preserveDrawingBuffer: true });
    if (!this.gl) {
      readout.textContent = "This browser has no WebGL 2; the pictures below need none.";
      return;
    }
    this.build();
    this.listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  build() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    const corner = gl.getAttribLocation(program, "corner");
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    this.camera = gl.getUniformLocation(program, "camera");
    this.reach = gl.getUniformLocation(program, "reach");
  }

  async load(name, address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const gl = this.gl, most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    let source = image;
    if (image.width > most) {
      source = new OffscreenCanvas(most, most / 2);
      source.getContext("2d").drawImage(image, 0, 0, most, most / 2);
    }
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, source);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.REPEAT);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    this.textures[name] = texture;
  }

  async show(name) {
    if (!this.textures[name]) await this.load(name, this.scene.pictures[name]);
    this.current = name;
    this.draw();
  }

  axes() {
    const [cy, sy, cp, sp] = [Math.cos(this.yaw), Math.sin(this.yaw), Math.cos(this.pitch), Math.sin(this.pitch)];
    return { forward: [cp * cy, cp * sy, sp], right: [sy, -cy, 0], up: [-sp * cy, -sp * sy, cp] };
  }

  half() {
    const tan = Math.tan(this.fov / 2);
    return [tan, tan * this.canvas.clientHeight / this.canvas.clientWidth];
  }

  draw() {
    const gl = this.gl, scale = window.devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth * scale, this.canvas.clientHeight * scale].map(Math.round);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    if (!this.current) return;
    const { forward, right, up } = this.axes();
    gl.viewport(0, 0, width, height);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[this.current]);
    gl.uniformMatrix3fv(this.camera, false, [...forward, ...right, ...up]);
    gl.uniform2fv(this.reach, this.half());
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Where a point of the canvas looks, as (u, v) in 0..1 of the panorama.
  under(x, y) {
    const { forward, right, up } = this.axes(), [tx, ty] = this.half();
    const a = (2 * x / this.canvas.clientWidth - 1) * tx, b = (1 - 2 * y / this.canvas.clientHeight) * ty;
    const ray = forward.map((value, i) => value + a * right[i] + b * up[i]);
    return [0.5 - Math.atan2(ray[1], ray[0]) / (2 * Math.PI),
            0.5 - Math.atan2(ray[2], Math.hypot(ray[0], ray[1])) / Math.PI];
  }

  read(x, y) {
    const [u, v] = this.under(x, y), degrees = (360 * (0.5 - u)).toFixed(1) + "\u00b0, " + (180 * (0.5 - v)).toFixed(1) + "\u00b0";
    this.readout.textContent = (this.scene.distance(u, v) + "  at  " + degrees).trim();
  }

  turn(across, upwards) {
    this.yaw += across;
    this.pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, this.pitch + upwards));
    this.draw();
  }

  zoom(factor) {
    this.fov = Math.max(NARROWEST, Math.min(WIDEST, this.fov * factor));
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
      if (held) {
        const perPixel = this.fov / this.canvas.clientWidth;
        this.turn((event.clientX - held[0]) * perPixel, (event.clientY - held[1]) * perPixel);
        held = [event.clientX, event.clientY];
      }
      this.read(event.offsetX, event.offsetY);
    });
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.001));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
      if (turns[event.key]) this.turn(...turns[event.key]);
      else if (event.key === "+") this.zoom(1 / 1.1);
      else if (event.key === "-") this.zoom(1.1);
      else return;
      event.preventDefault();
    });
  }
}

// Distances come as a picture whose red and green bytes make a 16-bit number; blue is 255 where it can be trusted.
async function distances(address, about) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const sheet = document.createElement("canvas");
  sheet.width = image.width;
  sheet.height = image.height;
  const pen = sheet.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const bytes = pen.getImageData(0, 0, image.width, image.height).data;
  return (u, v) => {
    const column = Math.min(image.width - 1, Math.floor((u - Math.floor(u)) * image.width));
    const row = Math.min(image.height - 1, Math.max(0, Math.floor(v * image.height)));
    const i = 4 * (row * image.width + column), code = 256 * bytes[i] + bytes[i + 1];
    if (code === 0) return "unknown";
    if (code === 65535) return "sky";
    const value = about.nearest * Math.exp((code - 1) * about.step);
    return value.toPrecision(4) + about.unit + (bytes[i + 2] ? "" : " (not trusted)");
  };
}

async function start(scene) {
  scene.distance = scene.codes ? await distances(scene.codes, scene.about) : () => "";  // a picture alone has none
  const viewer = new Viewer(document.getElementById("view"), document.getElementById("readout"), scene);
  const buttons = document.getElementById("layers");
  for (const name of Object.keys(scene.pictures)) {
    const button = document.createElement("button");
    button.textContent = name;
    button.addEventListener("click", async () => {
      for (const other of buttons.children) other.classList.toggle("on", other === button);
      if (viewer.gl) await viewer.show(name);
    });
    buttons.append(button);
  }
  window.viewer = viewer;
  if (viewer.gl) await viewer.show(Object.keys(scene.pictures)[0]);
  buttons.firstChild.classList.add("on");
  document.body.dataset.ready = "yes";
}

start(JSON.parse(document.getElementById("scene").textContent));
