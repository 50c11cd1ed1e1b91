/** Compiled shaders: shaders/spv holds `<variant>.<hash of its sources>.spv`, made by shaders/build.ts. */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const place = join("shaders", "spv");

/** Variants are named `<family>/<variant>`; file names have a dot for the slash. */
export const fileStem = (variant: string): string => variant.replaceAll("/", ".");

function findFolder(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)), i = 0; i < 5; i++, folder = dirname(folder)) {
    const path = join(folder, place);
    if (existsSync(path)) return path;
  }
  throw new Error("[vulkan] the compiled shaders (shaders/spv) are missing from this installation");
}

let files: Map<string, string> | undefined;
function listFiles(): Map<string, string> {
  const folder = findFolder();
  const found = new Map<string, string>();
  for (const name of readdirSync(folder)) {
    const match = /^(.+)\.[0-9a-f]{12}\.spv$/.exec(name);
    if (match) found.set(match[1] as string, join(folder, name));
  }
  return found;
}

/** Names of all compiled shaders, which change with their sources. */
export function shaderFiles(): string[] {
  files ??= listFiles();
  return [...files.values()].map((path) => basename(path));
}

/** SPIR-V of a variant. */
export function shaderCode(variant: string): Uint32Array {
  files ??= listFiles();
  const path = files.get(fileStem(variant));
  if (path === undefined) throw new Error(`[vulkan] no compiled shader ${variant}`);
  const bytes = readFileSync(path);
  return new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}
