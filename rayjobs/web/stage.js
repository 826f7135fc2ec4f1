// A clip as a stick figure on a canvas: orthographic, over and over, turned by dragging.
const COLOURS = [
  { left: "#1769aa", right: "#e4761b", trunk: "#5b6673" },
  { left: "#74aedb", right: "#f2b583", trunk: "#9aa3af" },
];
const PAUSE = 0.6; // seconds at the end of each round

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.turn = 0.66; // radians from facing the viewer
    this.speed = 1;
    this.onframe = () => {};
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons || !this.clip) return;
      this.turn += event.movementX / 120;
      this.draw();
    });
  }

  play(clip) {
    this.clip = clip;
    const points = clip.persons.flat().filter(Boolean).flat();
    const range = (axis) => {
      let [low, high] = [Infinity, -Infinity];
      for (const p of points) [low, high] = [Math.min(low, p[axis]), Math.max(high, p[axis])];
      return points.length ? [low, high] : [0, 1];
    };
    const [[x0, x1], [y0, y1], [z0, z1]] = [range(0), range(1), range(2)];
    this.middle = [(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2];
    const across = Math.hypot(x1 - x0, z1 - z0);
    this.scale = 0.82 * Math.min(this.canvas.width / Math.max(across, 1), this.canvas.height / Math.max(y1 - y0, 1));
    this.floor = y0;
    this.restart();
  }

  restart() {
    this.frame = 0;
    this.at = 0; // seconds into the round
    this.run();
  }

  run() {
    this.stop();
    let before = performance.now();
    const step = (now) => {
      const frames = this.clip.persons[0].length;
      this.at = (this.at + (Math.max(0, now - before) / 1000) * this.speed) % (frames / this.clip.fps + PAUSE);
      before = now;
      this.frame = Math.min(frames - 1, Math.floor(this.at * this.clip.fps));
      this.draw();
      this.onframe(this.frame);
      this.request = requestAnimationFrame(step);
    };
    this.request = requestAnimationFrame(step);
  }

  // Play or pause; whether it plays now.
  toggle() {
    if (!this.clip) return false;
    if (this.request) this.stop();
    else this.run();
    return Boolean(this.request);
  }

  stop() {
    cancelAnimationFrame(this.request);
    this.request = 0;
  }

  show(frame) {
    this.stop();
    this.frame = frame;
    this.at = frame / this.clip.fps;
    this.draw();
  }

  clear() {
    this.stop();
    this.clip = null;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  project([x, y, z]) {
    const [cx, cy, cz] = this.middle;
    const right = (x - cx) * Math.cos(this.turn) + (z - cz) * Math.sin(this.turn);
    const near = (z - cz) * Math.cos(this.turn) - (x - cx) * Math.sin(this.turn);
    const up = (y - cy) * 0.985 - near * 0.174; // from ten degrees above
    return [this.canvas.width / 2 + right * this.scale, this.canvas.height / 2 - up * this.scale];
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.lineCap = "round";
    this.clip.persons.forEach((person, m) => {
      const joints = person[this.frame];
      if (!joints) return;
      const colours = COLOURS[m % COLOURS.length];
      const at = joints.map((p) => this.project(p));
      const shadow = joints.map(([x, , z]) => this.project([x, this.floor, z]));
      for (const [a, b] of this.clip.bones) this.line(pen, shadow[a], shadow[b], "rgba(127,127,127,.18)", 5);
      for (const [a, b, side] of this.clip.bones) this.line(pen, at[a], at[b], colours[side], 6);
    });
  }

  line(pen, [x0, y0], [x1, y1], colour, width) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1, y1);
    pen.stroke();
  }
}
