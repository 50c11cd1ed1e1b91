/** Files: safetensors, GGUF, npy, npz. */
export { type GGUFMetadata, type GGUFValue, loadGGUF, saveGGUF, saveGGUF as saveGguf } from "./gguf.ts";
export { load } from "./load.ts";
export { save } from "./npy.ts";
export { savez, savezCompressed } from "./npz.ts";
export {
  type LoadOptions as LoadFileOptions, type SafetensorsEntry, type SafetensorsHeader, loadSafetensors, loadShards, readSafetensorsHeader, saveSafetensors,
} from "./safetensors.ts";
export type { FileLike } from "./source.ts";
