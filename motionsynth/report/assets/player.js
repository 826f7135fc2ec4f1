// The skeleton player: a real clip beside a synthetic one, turned by one camera. Reads the JSON elements of the page.
// THREE is the bundle in three.min.js. No build step: this file is embedded as it is.
(() => {
  "use strict";
  const root = document.getElementById("player");
  if (!root) return;

  const data = JSON.parse(document.getElementById("clips").textContent);
  const skeleton = data.skeleton;
  const $ = (selector) => root.querySelector(selector);
  const stage = $(".stage"), canvas = $("canvas"), scrub = $(".scrub"), time = $(".time"), playButton = $(".play");
  const select = { class: $("select.class"), real: $("select.real"), synthetic: $("select.synthetic"), speed: $("select.speed"),
    view: $("select.view") };
  const SIDES = ["real", "synthetic"];
  const STEPS = 30; // of the time slider, per second
  const TRAIL_SECONDS = 0.8, TRAIL_BEADS = 22;
  const VIEWS = { angle: [-0.62, 0.16, 1], front: [0, 0.08, 1], side: [-1, 0.08, 0.001], top: [0, 1, 0.02] };

  // --- clips ---------------------------------------------------------------------------------------------------------

  function decode(clip) {
    if (clip.values) return clip;
    const bytes = Uint8Array.from(atob(clip.data), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    clip.values = Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) * clip.scale);
    return clip;
  }

  const seconds = (clip) => (clip.frames - 1) / clip.fps;
  const offset = (clip, person, frame) => (person * clip.frames + frame) * skeleton.joints * 3;

  function isThere(clip, person, frame) {
    const at = offset(clip, person, frame);
    for (let i = 0; i < skeleton.joints * 3; i++) if (clip.values[at + i]) return true;
    return false;
  }

  // One body at a time, as [joints * 3] metres; null where that person is absent.
  function bodyAt(clip, person, t) {
    const at = Math.min(Math.max(t * clip.fps, 0), clip.frames - 1);
    const low = Math.floor(at), high = Math.min(low + 1, clip.frames - 1), share = at - low;
    if (!isThere(clip, person, low)) return null;
    const a = offset(clip, person, low), b = isThere(clip, person, high) ? offset(clip, person, high) : a;
    const out = new Float32Array(skeleton.joints * 3);
    for (let i = 0; i < out.length; i++) out[i] = clip.values[a + i] * (1 - share) + clip.values[b + i] * share;
    return out;
  }

  // --- bodies --------------------------------------------------------------------------------------------------------

  const up = new THREE.Vector3(0, 1, 0), none = new THREE.Matrix4().makeScale(0, 0, 0);
  const joint = (body, j) => new THREE.Vector3(body[3 * j], body[3 * j + 1], body[3 * j + 2]);
  const colour = (name) => new THREE.Color(getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  const limbColour = (side, person) => colour(`--${side}${person % 2 ? "2" : ""}`);

  // The ball of the head takes the place of its joints, and of the bone to its tip.
  const inHead = new Set(skeleton.head || []);
  const hidden = new Set(skeleton.head && skeleton.head[0] !== skeleton.head[1] ? [skeleton.head[1]] : []);

  class Body {
    constructor(scene, person) {
      this.person = person;
      const material = new THREE.MeshLambertMaterial();
      const bead = new THREE.MeshBasicMaterial({ transparent: true, opacity: 0.5 });
      this.bones = new THREE.InstancedMesh(new THREE.CylinderGeometry(1, 1, 1, 14), material, skeleton.bones.length);
      this.joints = new THREE.InstancedMesh(new THREE.SphereGeometry(1, 16, 12), material, skeleton.joints + 1);
      this.trail = new THREE.InstancedMesh(new THREE.SphereGeometry(1, 10, 8), bead, skeleton.ends.length * TRAIL_BEADS);
      this.parts = [this.bones, this.joints, this.trail];
      for (const mesh of this.parts) {
        mesh.frustumCulled = false;
        mesh.castShadow = mesh !== this.trail;
        scene.add(mesh);
      }
    }

    paint() {
      skeleton.bones.forEach(([, , side], i) => this.bones.setColorAt(i, limbColour(side, this.person)));
      skeleton.sides.forEach((side, j) => this.joints.setColorAt(j, limbColour(side, this.person)));
      this.joints.setColorAt(skeleton.joints, limbColour("trunk", this.person));
      skeleton.ends.forEach((end, e) => {
        for (let k = 0; k < TRAIL_BEADS; k++)
          this.trail.setColorAt(e * TRAIL_BEADS + k, limbColour(skeleton.sides[end], this.person));
      });
      for (const mesh of this.parts) mesh.instanceColor.needsUpdate = true;
    }

    pose(clip, t, trails) {
      const body = clip && this.person < clip.persons ? bodyAt(clip, this.person, t) : null;
      const m = new THREE.Matrix4(), turn = new THREE.Quaternion();
      skeleton.bones.forEach(([child, parent, side], i) => {
        if (!body || hidden.has(child)) return this.bones.setMatrixAt(i, none);
        const a = joint(body, parent), b = joint(body, child), way = b.clone().sub(a), length = way.length();
        turn.setFromUnitVectors(up, length > 1e-6 ? way.divideScalar(length) : up);
        const radius = side === "trunk" ? 0.034 : 0.027;
        this.bones.setMatrixAt(i, m.compose(a.add(b).multiplyScalar(0.5), turn, new THREE.Vector3(radius, length, radius)));
      });
      const ball = (mesh, i, at, radius) =>
        mesh.setMatrixAt(i, radius ? m.makeScale(radius, radius, radius).setPosition(at) : none);
      for (let j = 0; j < skeleton.joints; j++)
        ball(this.joints, j, body && joint(body, j), body && !inHead.has(j) ? (skeleton.sides[j] === "trunk" ? 0.036 : 0.031) : 0);
      const [head, tip] = skeleton.head || [0, 0];
      const middle = body && joint(body, head).add(joint(body, tip)).multiplyScalar(0.5);
      ball(this.joints, skeleton.joints, middle, body && skeleton.head ? skeleton.headRadius : 0);
      const past = Array.from({ length: TRAIL_BEADS }, (_, k) => {
        const then = t - (TRAIL_SECONDS * (k + 1)) / TRAIL_BEADS;
        return trails && body && then >= 0 ? bodyAt(clip, this.person, then) : null;
      });
      skeleton.ends.forEach((end, e) =>
        past.forEach((then, k) =>
          ball(this.trail, e * TRAIL_BEADS + k, then && joint(then, end), then ? 0.017 * (1 - k / TRAIL_BEADS) : 0)));
      for (const mesh of this.parts) mesh.instanceMatrix.needsUpdate = true;
    }
  }

  // One half of the stage: a floor, light, and a body for each person.
  class Pane {
    constructor(persons) {
      this.scene = new THREE.Scene();
      this.sky = new THREE.HemisphereLight(0xffffff, 0xc9ced6, 3.0);
      this.sun = new THREE.DirectionalLight(0xffffff, 1.4);
      this.sun.castShadow = true;
      this.sun.shadow.mapSize.set(1024, 1024);
      this.sun.shadow.radius = 4;
      this.shade = new THREE.Mesh(new THREE.PlaneGeometry(30, 30), new THREE.ShadowMaterial({ opacity: 0.16 }));
      this.shade.rotation.x = -Math.PI / 2;
      this.shade.receiveShadow = true;
      this.grid = Pane.floor();
      this.scene.add(this.sky, this.sun, this.sun.target, this.shade, this.grid);
      this.bodies = Array.from({ length: persons }, (_, p) => new Body(this.scene, p));
      this.clip = null;
    }

    // A floor of half-metre squares.
    static floor(half = 4, step = 0.5) {
      const points = [];
      for (let k = -half; k <= half + 1e-6; k += step) points.push(k, 0, -half, k, 0, half, -half, 0, k, half, 0, k);
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(points), 3));
      return new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ transparent: true, opacity: 0.65 }));
    }

    paint(side) {
      this.scene.background = colour(`--paper-${side}`);
      this.grid.material.color = colour("--floor");
      this.bodies.forEach((body) => body.paint());
    }

    // Light and shadow go where the clip is.
    aim(box) {
      const reach = Math.max(box.size.x, box.size.y, box.size.z) * 0.75 + 0.5;
      this.sun.position.set(box.centre.x - 1.2 * reach, box.centre.y + 3 * reach, box.centre.z + 1.6 * reach);
      this.sun.target.position.copy(box.centre);
      Object.assign(this.sun.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 0.1, far: 9 * reach });
      this.sun.shadow.camera.updateProjectionMatrix();
      this.grid.position.set(Math.round(box.centre.x * 2) / 2, 0, Math.round(box.centre.z * 2) / 2);
    }
  }

  // --- state ---------------------------------------------------------------------------------------------------------

  const state = { t: 0, playing: false, last: 0, dirty: true };
  let renderer, camera, orbit, panes;

  const chosen = (side) => data.clips[Number(select[side].value)];
  const duration = () => Math.max(...SIDES.map((side) => (panes[side].clip ? seconds(panes[side].clip) : 0)), 0.05);
  const length = () => Math.max(1, Math.round(duration() * STEPS));

  function fill(menu, indices, titles) {
    menu.replaceChildren(...indices.map((at, i) => new Option(titles(at, i), at)));
    menu.disabled = !indices.length;
  }

  function chooseClass(index) {
    const entry = data.classes[index];
    select.class.value = String(index);
    fill(select.real, entry.real, (at, i) => `${i + 1} of ${entry.real.length}: ${data.clips[at].title}`);
    fill(select.synthetic, entry.synthetic, (at, i) => `${i + 1} of ${entry.synthetic.length}: ${data.clips[at].title}`);
    chooseClips();
  }

  function chooseClips() {
    for (const side of SIDES) {
      const clip = select[side].value === "" ? null : decode(chosen(side));
      panes[side].clip = clip;
      $(`.pane.${side} span`).textContent = clip ? clip.title : "no clip of this class";
    }
    scrub.max = String(length());
    const synthetic = panes.synthetic.clip, entry = data.classes[Number(select.class.value)];
    $(".nearest").disabled = !synthetic;
    const cm = (metres) => `${(100 * metres).toFixed(1)} cm`;
    const among = entry.floor === null ? "" : `; training clips of the class lie ${cm(entry.floor)} from each other (median)`;
    $(".facts").textContent = synthetic
      ? `This synthetic clip is ${cm(synthetic.distance)} per joint from its nearest training clip, ${data.clips[synthetic.nearest].title}${among}.`
      : "";
    frame();
    seek(0);
  }

  function seek(t) {
    state.t = t;
    const at = Math.round(t * STEPS);
    scrub.value = String(at);
    scrub.style.setProperty("--done", `${(100 * at) / length()}%`);
    time.textContent = `${t.toFixed(2)} / ${duration().toFixed(2)} s`;
    scrub.setAttribute("aria-valuetext", time.textContent);
    state.dirty = true;
  }

  function setPlaying(on) {
    state.playing = on;
    state.last = performance.now();
    playButton.setAttribute("aria-pressed", String(on));
    playButton.setAttribute("aria-label", on ? "Pause" : "Play");
    if (on && state.t >= duration() - 1e-3) seek(0);
  }

  const step = (by) => {
    setPlaying(false);
    seek(Math.min(Math.max(Math.round(state.t * STEPS) + by, 0), length()) / STEPS);
  };

  // --- view ----------------------------------------------------------------------------------------------------------

  // Where both clips go, so that one camera sees both whole.
  function bounds() {
    const low = new THREE.Vector3(Infinity, 0, Infinity), high = new THREE.Vector3(-Infinity, 1, -Infinity);
    for (const side of SIDES) {
      const clip = panes[side].clip;
      for (let p = 0; clip && p < clip.persons; p++)
        for (let f = 0; f < clip.frames; f++) {
          if (!isThere(clip, p, f)) continue;
          const body = bodyAt(clip, p, f / clip.fps);
          for (let j = 0; j < skeleton.joints; j++) low.min(joint(body, j)), high.max(joint(body, j));
        }
    }
    if (!Number.isFinite(low.x)) low.set(-0.5, 0, -0.5), high.set(0.5, 1.7, 0.5);
    low.y = 0;
    return { centre: low.clone().add(high).multiplyScalar(0.5), size: high.clone().sub(low) };
  }

  function rects() {
    const w = stage.clientWidth, h = stage.clientHeight;
    return getComputedStyle($(".pane.synthetic")).left === "0px"
      ? { real: [0, h / 2, w, h / 2], synthetic: [0, 0, w, h / 2] }
      : { real: [0, 0, w / 2, h], synthetic: [w / 2, 0, w / 2, h] };
  }

  // Both clips in full, seen from where the viewer last turned to, or from a direction.
  function frame(direction) {
    const box = bounds(), [, , w, h] = rects().real;
    const across = Math.hypot(box.size.x, box.size.z) + 0.3, tall = box.size.y + 0.6;
    const half = Math.tan((camera.fov * Math.PI) / 360);
    const far = Math.max(tall / (2 * half), across / (2 * half * (w / h))) + 0.35 * across;
    const from = direction ? new THREE.Vector3(...direction) : camera.position.clone().sub(orbit.target);
    orbit.target.set(box.centre.x, box.size.y * 0.5 + 0.12, box.centre.z);
    camera.position.copy(from.normalize().multiplyScalar(far).add(orbit.target));
    orbit.update();
    for (const side of SIDES) panes[side].aim(box);
    state.dirty = true;
  }

  function draw() {
    const place = rects();
    for (const side of SIDES) {
      const pane = panes[side], [x, y, w, h] = place[side];
      pane.bodies.forEach((body) => body.pose(pane.clip, state.t, $(".trails").checked));
      camera.aspect = w / h;
      camera.updateProjectionMatrix();
      renderer.setViewport(x, y, w, h);
      renderer.setScissor(x, y, w, h);
      renderer.render(pane.scene, camera);
    }
  }

  function tick(now) {
    requestAnimationFrame(tick);
    if (state.playing) {
      const t = state.t + ((now - state.last) / 1000) * Number(select.speed.value);
      state.last = now;
      seek(t > duration() + 0.35 ? 0 : t); // a breath before it starts again
      time.textContent = `${Math.min(t, duration()).toFixed(2)} / ${duration().toFixed(2)} s`;
    }
    if (!state.dirty) return;
    state.dirty = false;
    draw();
  }

  function resize() {
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(stage.clientWidth, stage.clientHeight, false);
    frame();
  }

  function repaint() {
    for (const side of SIDES) panes[side].paint(side);
    state.dirty = true;
  }

  // --- start ---------------------------------------------------------------------------------------------------------

  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
  } catch {
    $(".failed").hidden = false;
    return;
  }
  renderer.setScissorTest(true);
  renderer.shadowMap.enabled = true;
  camera = new THREE.PerspectiveCamera(26, 1, 0.05, 200);
  orbit = new THREE.OrbitControls(camera, canvas);
  Object.assign(orbit, { enablePan: false, enableZoom: false, maxPolarAngle: Math.PI / 2 - 0.01 });
  canvas.style.touchAction = "pan-y"; // a phone must still scroll past the player
  orbit.addEventListener("change", () => (state.dirty = true));
  const persons = Math.max(...data.clips.map((clip) => clip.persons));
  panes = { real: new Pane(persons), synthetic: new Pane(persons) };

  playButton.addEventListener("click", () => setPlaying(!state.playing));
  scrub.addEventListener("input", () => {
    setPlaying(false);
    seek(Math.min(Number(scrub.value) / STEPS, duration()));
  });
  select.class.addEventListener("change", () => chooseClass(Number(select.class.value)));
  for (const side of SIDES) select[side].addEventListener("change", chooseClips);
  select.view.addEventListener("change", () => frame(VIEWS[select.view.value]));
  $(".trails").addEventListener("change", () => (state.dirty = true));
  $(".nearest").addEventListener("click", () => {
    select.real.value = String(panes.synthetic.clip.nearest);
    chooseClips();
  });
  canvas.addEventListener("pointerdown", () => stage.focus({ preventScroll: true }));
  root.addEventListener("keydown", (event) => {
    const on = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || on.matches("select")) return;
    if (event.key === " " && !on.matches("button, input[type=checkbox]")) setPlaying(!state.playing);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  // A class name anywhere on the page leads to its clips.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-class]");
    const index = link ? data.classes.findIndex((c) => c.label === Number(link.dataset.class)) : -1;
    if (index >= 0) chooseClass(index);
  });
  new ResizeObserver(resize).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  repaint();
  chooseClass(0);
  frame(VIEWS.angle);
  requestAnimationFrame(tick);
})();
