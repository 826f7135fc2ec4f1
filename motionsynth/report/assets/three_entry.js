// What player.js uses of three.js: the entry from which three.min.js is bundled; README.md has the command.
export {
  BufferAttribute, BufferGeometry, Color, CylinderGeometry, DirectionalLight, HemisphereLight, InstancedMesh,
  LineBasicMaterial, LineSegments, Matrix4, Mesh, MeshBasicMaterial, MeshLambertMaterial, PerspectiveCamera, PlaneGeometry,
  Quaternion, Scene, ShadowMaterial, SphereGeometry, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
