// What is done to an element of a product before it is stored, when the planner joins elementwise ops with the product: a pass over the result less. The body of
// `epilogue` is put in at run time (src/codegen/epilogue-spirv.ts finds it by its type), so it must stay a function: builds with EPILOGUE are not inlined here.
float epilogue(const in float v, const in float x0, const in float x1, const in float x2, const in float x3, const in float x4, const in float x5) { return v; }

// Further operands, in the dtype of the result, 2 bits each from bit 8 of `flags`.
#define NO_OPERAND 0u
// Of the result's shape, row-major.
#define LIKE_RESULT 1u
// A row for all rows.
#define ONE_ROW 2u
#define ONE_VALUE 3u
#define KIND(k) ((flags >> (8 + 2 * k)) & 3u)
int placeIn(uint kind, int at, int n) { return kind == LIKE_RESULT ? at : kind == ONE_ROW ? n : 0; }
