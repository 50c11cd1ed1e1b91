/** One build of a shader. Its name is `<family>/<key in the family's table>`. */
export interface Variant {
  /** GLSL source, relative to the family's folder. */
  readonly source: string;
  /** Preprocessor definitions. */
  readonly defines?: Readonly<Record<string, string | number>>;
}
export type Variants = Readonly<Record<string, Variant>>;
