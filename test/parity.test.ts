/** MLX's public names: all here, or absent with a reason. `npm run parity` writes src/PARITY.md. */
import { describe, expect, test } from "vitest";
import { camel, factsOf, findHere, givenReasons, names, parityDocument, reasonFor } from "./helpers/parity.ts";

describe("names", () => {
  test("the list holds what MLX's documents and bindings count", () => {
    const count = (section: string): number => names[section]?.length ?? 0;
    // 203 functions and their second names; 13 random functions and the state; 44 methods and 10 properties.
    expect([count("mlx.core"), count("array"), count("random"), count("linalg"), count("fft"), count("fast")]).toEqual([219, 54, 14, 19, 16, 7]);
    expect([count("nn functions") + count("nn layers"), count("nn.losses"), count("nn.init"), count("nn.Module")]).toEqual([106, 14, 10, 24]);
    for (const list of Object.values(names)) expect(new Set(list).size).toBe(list.length);
  });
  test.each(Object.keys(names))("%s: every name is here or absent with a reason", (section) => {
    const unexplained = (names[section] ?? []).filter((n) => findHere(section, n) === undefined && !reasonFor(section, n));
    expect(unexplained).toEqual([]);
  });
  test("reasons are given only for absent names", () => {
    for (const [section, name] of givenReasons()) {
      expect(names[section], section).toBeDefined();
      if (name === undefined) continue;
      expect(names[section]).toContain(name);
      expect(findHere(section, name), name).toBeUndefined();
    }
  });
  test("a name that is nowhere is noticed", () => {
    expect(findHere("mlx.core", "no_such_function")).toBeUndefined();
    expect(reasonFor("mlx.core", "no_such_function")).toBeUndefined();
    expect([camel("conv_transpose1d"), camel("atleast_1d"), camel("log_cosh_loss"), camel("gather_qmm"), camel("bool_")]).toEqual(["convTranspose1d", "atleast1d", "logCoshLoss", "gatherQMM", "bool_"]);
  });
});

describe("facts", () => {
  test("come from the op records", () => {
    expect(factsOf("mlx.core", "exp")).toMatchObject({ ops: "exp", cpu: "generated", gpu: "generated", gradient: "yes", vmap: "yes" });
    expect(factsOf("mlx.core", "sign")).toMatchObject({ gradient: "zero", dtypes: "all" });
    expect(factsOf("linalg", "qr")).toMatchObject({ ops: "qr", cpu: "kernel", gpu: "CPU" });
    expect(factsOf("mlx.core", "matmul")).toMatchObject({ cpu: "kernel", gpu: "kernel", gradient: "yes" });
    expect(factsOf("mlx.core", "save")).toBeUndefined();
  });
});

test("src/PARITY.md is what `npm run parity` makes", async () => {
  await expect(parityDocument()).toMatchFileSnapshot("../src/PARITY.md");
});
