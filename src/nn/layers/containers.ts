/** Modules made of modules. */
import type { MxArray } from "../../index.ts";
import { Module } from "../module.ts";

type Layer = Module | ((x: MxArray) => MxArray);

/** Calls modules or functions one after the other. */
export class Sequential extends Module {
  layers: Layer[];

  constructor(...modules: Layer[]) {
    super();
    this.layers = modules;
  }
  override forward(x: MxArray): MxArray {
    let y = x;
    for (const layer of this.layers) y = typeof layer === "function" ? layer(y) : (layer.forward(y) as MxArray);
    return y;
  }
}
