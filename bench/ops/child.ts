/** A process of bench/ops. Argument: which library. The peers lie in bench/peers/node_modules. */
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";
import { version } from "../peers/installed.ts";
import { learningRate } from "./cases.ts";
import { serve } from "./engine.ts";
import { jaxEngine } from "./jax.ts";
import { mlxEngine } from "./mlx.ts";
import { onnxEngine } from "./onnx.ts";
import { tfjsEngine } from "./tfjs.ts";

const peer = (name: string): string => {
  if (version(name) === undefined) throw new Error(`${name} is not installed: cd bench/peers && npm install`);
  return pathToFileURL(createRequire(join(import.meta.dirname, "../peers/package.json")).resolve(name)).href;
};
type Library = Parameters<typeof mlxEngine>[0];

const [which, threads] = process.argv.slice(2);
if (which === "mlx-vk") await serve(async () => mlxEngine(await import("../../src/index.ts"), learningRate, true));
else if (which === "@frost-beta/mlx") {
  // Its compile needs a C++ compiler when it runs, and is no faster on a CPU; so it works as its own examples do.
  await serve(async () => mlxEngine(((await import(peer(which))) as { default: Library }).default, learningRate, false));
} else if (which === "tfjs") await serve(async () => tfjsEngine(peer("@tensorflow/tfjs-core"), peer("@tensorflow/tfjs-backend-wasm")));
else if (which === "onnxruntime-node") await serve(async () => onnxEngine(peer(which), Number(threads)));
else await serve(async () => jaxEngine(peer("@jax-js/jax"), Number(threads), learningRate));
