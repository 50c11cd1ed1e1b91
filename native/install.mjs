// Builds the Vulkan addon when CMake and a C++ compiler are there. Runs as the install script, before anything else is built, and never
// makes the installation fail: without the addon the package works on the CPU, and says why from the line left in build/not-built.txt.
// `--required` gives up with an error instead. MLX_VK_BUILD=0 skips the build.
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const required = process.argv.includes("--required");

function runs(command) {
  return spawnSync(command, ["--version"], { stdio: "ignore", shell: process.platform === "win32" }).status === 0;
}

/** Why the addon cannot be built here, or undefined. */
function missing() {
  if (process.env["MLX_VK_BUILD"] === "0") return "MLX_VK_BUILD=0";
  if (process.arch !== "x64" && process.arch !== "arm64") return `no support for ${process.arch}`;
  if (!tool()) return "cmake-js is not installed";
  if (!runs("cmake")) return "CMake is not installed";
  // On Windows CMake finds Visual Studio by itself.
  if (process.platform !== "win32" && ![process.env["CXX"], "c++", "g++", "clang++"].some((c) => c && runs(c))) return "no C++ compiler is installed";
  return undefined;
}

/** The program of the optional dependency cmake-js. */
function tool() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve("cmake-js/package.json")), "bin", "cmake-js");
  } catch {
    return undefined;
  }
}

function build() {
  // The key `binary.napi_versions` in native/package.json keeps cmake-js from downloading anything.
  const done = spawnSync(process.execPath, [tool(), "compile", "--directory", here, "--out", join(here, "build")], { cwd: dirname(here), stdio: required ? "inherit" : "pipe", encoding: "utf8" });
  if (done.status === 0) return undefined;
  return `the build failed: ${(done.error?.message ?? `${done.stdout ?? ""}${done.stderr ?? ""}`).trim().split("\n").slice(-3).join(" | ")}`;
}

let reason;
try {
  reason = missing() ?? build();
} catch (error) {
  reason = `the build failed: ${error instanceof Error ? error.message : error}`;
}
try {
  const note = join(here, "build", "not-built.txt");
  if (reason === undefined) rmSync(note, { force: true });
  else {
    mkdirSync(dirname(note), { recursive: true });
    writeFileSync(note, `${reason}\n`);
  }
} catch {
  // A folder that cannot be written to: the reason is on the screen.
}
if (reason !== undefined) {
  console.warn(`mlx-vk: built without the Vulkan addon (${reason}); it will run on the CPU.`);
  if (required) process.exitCode = 1;
}
