/** native/vk.h against the system's vulkan_core.h: every size, offset and value, as static assertions. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { vulkanRequired } from "./helpers/vulkan.ts";

const native = join(import.meta.dirname, "..", "native");
const source = readFileSync(join(native, "vk.h"), "utf8");
const part = (name: string): string => {
  const match = new RegExp(`// ${name}:begin\n([\\s\\S]*)// ${name}:end`).exec(source);
  if (!match) throw new Error(`native/vk.h has no part ${name}`);
  return match[1] as string;
};
const values = [...part("values").matchAll(/^constexpr \w+ (\w+) =/gm)].map((m) => m[1] as string);
const structs = [...part("structs").matchAll(/^struct (\w+) \{([\s\S]*?)\};$/gm)].map((m) => {
  // A member is the last name before ";", without the length of an array and the initial value; a function pointer is named inside (*...).
  const members = (m[2] as string)
    .split(";")
    .map((s) => (/\*\s*(pfn\w+)\)/.exec(s) ?? /(\w+)(?:\[\w+\])?(?: = \w+)?\s*$/.exec(s.trim()))?.[1])
    .filter((s): s is string => s !== undefined && !s.startsWith("gap"));
  return { name: m[1] as string, members };
});

/** The checks as a C++ program. Those of an extension that the header may be too old for come behind its macro. */
function program(): string {
  const newer = (name: string): string | undefined => (/COOPERATIVE_MATRIX|CooperativeMatrix/.test(name) ? "cooperative_matrix" : /BFLOAT16|Bfloat16/.test(name) ? "shader_bfloat16" : undefined);
  const checks: [string, string][] = [
    ...values.map((v): [string, string] => [v, `static_assert(static_cast<long long>(vk::${v}) == static_cast<long long>(VK_${v}), "${v}");`]),
    ...structs.flatMap((s): [string, string][] => [
      [s.name, `static_assert(sizeof(vk::${s.name}) == sizeof(Vk${s.name}), "size of ${s.name}");`],
      ...s.members.map((m): [string, string] => [
        s.name,
        `static_assert(offsetof(vk::${s.name}, ${m}) == offsetof(Vk${s.name}, ${m}) && sizeof(vk::${s.name}::${m}) == sizeof(Vk${s.name}::${m}), "${s.name}.${m}");`,
      ]),
    ]),
  ];
  const lines = checks.map(([name, text]) => (newer(name) ? `#ifdef VK_KHR_${newer(name)}\n${text}\n#endif` : text));
  return `#include <vulkan/vulkan_core.h>\n#include "${join(native, "vk.h")}"\n${lines.join("\n")}\n`;
}

const compiler = [process.env["CXX"], "c++", "g++", "clang++"].find((c) => c && spawnSync(c, ["--version"]).status === 0);
const header = existsSync("/usr/include/vulkan/vulkan_core.h");

function compile(text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "mlx-vk-abi-"));
  try {
    const file = join(folder, "abi.cc");
    writeFileSync(file, text);
    const run = spawnSync(compiler as string, ["-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", file], { encoding: "utf8" });
    return run.status === 0
      ? ""
      : run.stderr
          .split("\n")
          .filter((l) => l.includes("error"))
          .join("\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("the parts of vk.h are read", () => {
  expect(values.length).toBeGreaterThan(90);
  expect(structs.length).toBeGreaterThan(45);
  expect(structs.find((s) => s.name === "BufferCreateInfo")?.members).toEqual([
    "sType",
    "pNext",
    "flags",
    "size",
    "usage",
    "sharingMode",
    "queueFamilyIndexCount",
    "pQueueFamilyIndices",
  ]);
  expect(structs.find((s) => s.name === "DebugUtilsMessengerCreateInfoEXT")?.members).toContain("pfnUserCallback");
  expect((header && compiler !== undefined) || !vulkanRequired).toBe(true);
});
test.skipIf(!header || compiler === undefined)("sizes, offsets and values are those of the system's header", () => {
  expect(compile(program())).toBe("");
});
test.skipIf(!header || compiler === undefined)("a wrong value is found", () => {
  expect(compile(program().replace(/vk::ERROR_DEVICE_LOST\)/, "vk::ERROR_OUT_OF_HOST_MEMORY)"))).toContain("ERROR_DEVICE_LOST");
});
