/* TraceGrad on features that have their own number of channels for each irrep, forward only: f -> z and f + s v.
 *
 * What ragged_gradient.py's caller does in torch (RaggedScalars, GradientFeature, TraceGradModule), with all that belongs to an item
 * in the first two levels of cache. Items stand side by side in the lanes of a vector, so that an irrep of one channel costs what its
 * numbers cost; they are turned into that order when they are read and back when they are written.
 *
 * REAL is float or double. The vector extension is GCC's and Clang's and serves every instruction set.
 */
#include <stdint.h>

enum { LANES = 64 / sizeof(REAL), TILE = 8 };
typedef REAL vector __attribute__((vector_size(64)));
typedef __typeof__((vector){0} < (vector){0}) integers;

#define EPSILON ((REAL)1e-5)  /* of the LayerNorms */
#define FLOOR ((REAL)1e-12)   /* of |v|^2, for each number */

/* y_r = sum over k of x_k w[k rows + r columns] (+ bias_r). */
static inline __attribute__((always_inline)) void tile(const int n, int64_t n_in, const vector *x, const REAL *w, int64_t rows,
                                                       int64_t columns, const REAL *bias, vector *y)
{
    vector sum[TILE];
    for (int r = 0; r < n; r++)
        sum[r] = bias ? (vector){0} + bias[r] : (vector){0};
    for (int64_t k = 0; k < n_in; k++) {
        const vector own = x[k];
        const REAL *row = w + k * rows;
#pragma GCC unroll 8
        for (int r = 0; r < n; r++)
            sum[r] += own * row[r * columns];
    }
    for (int r = 0; r < n; r++)
        y[r] = sum[r];
}

static void product(int64_t n_in, int64_t n_out, const vector *x, const REAL *w, int64_t rows, int64_t columns, const REAL *bias,
                    vector *y)
{
    int64_t r = 0;
    for (; r + TILE <= n_out; r += TILE)
        tile(TILE, n_in, x, w + r * columns, rows, columns, bias ? bias + r : 0, y + r);
    for (; r + 2 <= n_out; r += 2)
        tile(2, n_in, x, w + r * columns, rows, columns, bias ? bias + r : 0, y + r);
    for (; r < n_out; r++)
        tile(1, n_in, x, w + r * columns, rows, columns, bias ? bias + r : 0, y + r);
}

static inline __attribute__((always_inline)) vector smaller(vector a, vector b)
{
    const integers choice = a < b;
    return (vector)(((integers)a & choice) | ((integers)b & ~choice));
}

/* 1 / (1 + exp(-x)); exp is a power of two times exp(r), |r| <= ln(2) / 2. */
static inline __attribute__((always_inline)) vector sigmoid(vector x)
{
    enum { MANTISSA = sizeof(REAL) == 4 ? 23 : 52, BIAS = sizeof(REAL) == 4 ? 127 : 1023, ORDER = sizeof(REAL) == 4 ? 7 : 13 };
    const REAL limit = 80, shift = (REAL)(3ll << (MANTISSA - 1));
    const REAL high = (REAL)0.693359375, low = (REAL)-2.12194440054690583e-4; /* ln(2); the first has few bits */
    const vector zero = {0};
    const vector y = smaller(-smaller(x, zero + limit), zero + limit);
    const vector moved = y * (REAL)1.44269504088896341 + shift, n = moved - shift;
    const vector r = (y - n * high) - n * low;
    vector sum = zero + (REAL)1;
#pragma GCC unroll 16
    for (int k = ORDER; k > 0; k--)
        sum = 1 + sum * r * ((REAL)1 / (REAL)k);
    const integers power = (((integers)moved - (integers)(zero + shift)) + BIAS) << MANTISSA;
    return 1 / (1 + sum * (vector)power);
}

static inline __attribute__((always_inline)) vector root(vector x)
{
    for (int lane = 0; lane < LANES; lane++)
        x[lane] = (REAL)__builtin_sqrt((double)x[lane]);
    return x;
}

/* SiLU of the LayerNorm of n numbers in place; where they were, the normalised numbers; in slope, the SiLU's slope. Returns the
 * inverse standard deviation. */
static vector layer(int64_t n, vector *x, const REAL *weight, const REAL *bias, vector *out, vector *slope)
{
    vector mean = {0}, square = {0};
    for (int64_t k = 0; k < n; k++)
        mean += x[k];
    mean /= (REAL)n;
    for (int64_t k = 0; k < n; k++)
        square += (x[k] - mean) * (x[k] - mean);
    const vector scale = 1 / root(square / (REAL)n + EPSILON);
    for (int64_t k = 0; k < n; k++) {
        x[k] = (x[k] - mean) * scale;
        const vector value = weight ? x[k] * weight[k] + bias[k] : x[k], s = sigmoid(value);
        out[k] = value * s;
        slope[k] = s + out[k] * (1 - s);
    }
    return scale;
}

/* Gradient before a LayerNorm in place of the one after it. */
static void layer_back(int64_t n, vector *gradient, const vector *normed, vector scale, const REAL *weight)
{
    vector mean = {0}, along = {0};
    for (int64_t k = 0; k < n; k++) {
        if (weight)
            gradient[k] *= weight[k];
        mean += gradient[k];
        along += gradient[k] * normed[k];
    }
    mean /= (REAL)n;
    along /= (REAL)n;
    for (int64_t k = 0; k < n; k++)
        gradient[k] = scale * (gradient[k] - mean - normed[k] * along);
}

/* Items begin..end of n_items. All arrays are contiguous.
 *   dims, widths, ranks  (irrep): components, channels, invariants u
 *   features, out        (irrep) addresses of (item, component, channel)
 *   maps                 (irrep) addresses of A and B side by side, (channel, 2 rank), scaled by the fourth root of 1 / (2l + 1)
 *   first, second        (hidden, u), (scalar, hidden); their biases (hidden), (scalar)
 *   norms                addresses of weight and bias of both LayerNorms; zeros where they have none
 *   strength             factor of v; of |f| / |v| v if norm_scaled
 *   z                    (item, scalar)
 *   scratch              2 size + 2 both + 2 u + 5 hidden + 3 scalar vectors; size: numbers of f in an item, both: of A f and B f */
void ragged_gradient(int64_t begin, int64_t end, int64_t n_irreps, const int64_t *dims, const int64_t *widths, const int64_t *ranks,
                      const REAL *const *features, REAL *const *out, const REAL *const *maps, int64_t n_u, int64_t n_hidden,
                      int64_t n_scalars, const REAL *first, const REAL *first_bias, const REAL *second, const REAL *second_bias,
                      const REAL *const *norms, const REAL *strength, int64_t norm_scaled, REAL *z, vector *scratch)
{
    int64_t size = 0, both_size = 0;
    for (int64_t i = 0; i < n_irreps; i++) {
        size += dims[i] * widths[i];
        both_size += dims[i] * 2 * ranks[i];
    }
    vector *f = scratch, *v = f + size, *both = v + size, *swapped = both + both_size;
    vector *u = swapped + both_size, *of_u = u + n_u, *x1 = of_u + n_u, *act1 = x1 + n_hidden, *slope1 = act1 + n_hidden;
    vector *grad1 = slope1 + n_hidden, *x2 = grad1 + n_hidden, *act2 = x2 + n_scalars, *slope2 = act2 + n_scalars;

    for (int64_t block = begin; block < end; block += LANES) {
        const int64_t here = end - block < LANES ? end - block : LANES;
        vector *own = f;
        for (int64_t i = 0; i < n_irreps; own += dims[i] * widths[i], i++) {
            const int64_t n = dims[i] * widths[i];
            for (int64_t lane = 0; lane < LANES; lane++) { /* lanes beyond the last item hold the first one again */
                const REAL *item = features[i] + (block + (lane < here ? lane : 0)) * n;
                REAL *to = (REAL *)own + lane;
                for (int64_t k = 0; k < n; k++)
                    to[k * LANES] = item[k];
            }
        }

        const vector *from = f;
        vector *pair = both, *term = u;
        for (int64_t i = 0; i < n_irreps; i++) {
            const int64_t rank = ranks[i];
            for (int64_t c = 0; c < rank; c++)
                term[c] = (vector){0};
            for (int64_t m = 0; m < dims[i]; m++, from += widths[i], pair += 2 * rank) {
                product(widths[i], 2 * rank, from, maps[i], 2 * rank, 1, 0, pair);
                for (int64_t c = 0; c < rank; c++)
                    term[c] += pair[c] * pair[rank + c];
            }
            term += rank;
        }

        product(n_u, n_hidden, u, first, 1, n_u, first_bias, x1);
        const vector scale1 = layer(n_hidden, x1, norms[0], norms[1], act1, slope1);
        product(n_hidden, n_scalars, act1, second, 1, n_hidden, second_bias, x2);
        const vector scale2 = layer(n_scalars, x2, norms[2], norms[3], act2, slope2);
        for (int64_t lane = 0; lane < here; lane++)
            for (int64_t k = 0; k < n_scalars; k++)
                z[(block + lane) * n_scalars + k] = ((const REAL *)(act2 + k))[lane];
        layer_back(n_scalars, slope2, x2, scale2, norms[2]);
        product(n_scalars, n_hidden, slope2, second, n_hidden, 1, 0, grad1);
        for (int64_t k = 0; k < n_hidden; k++)
            grad1[k] *= slope1[k];
        layer_back(n_hidden, grad1, x1, scale1, norms[0]);
        product(n_hidden, n_u, grad1, first, n_u, 1, 0, of_u);

        vector of_f = {0}, of_v = {0}, *change = v;
        const vector *weight = of_u;
        pair = both;
        from = f;
        for (int64_t i = 0; i < n_irreps; weight += ranks[i], i++) {
            const int64_t rank = ranks[i];
            for (int64_t m = 0; m < dims[i]; m++, pair += 2 * rank, from += widths[i], change += widths[i]) {
                for (int64_t c = 0; c < rank; c++) {
                    swapped[c] = pair[rank + c] * weight[c];
                    swapped[rank + c] = pair[c] * weight[c];
                }
                product(2 * rank, widths[i], swapped, maps[i], 1, 2 * rank, 0, change);
                for (int64_t k = 0; k < widths[i]; k++) {
                    of_f += from[k] * from[k];
                    of_v += change[k] * change[k];
                }
            }
        }
        vector factor = (vector){0} + strength[0];
        if (norm_scaled)
            factor *= root(of_f / (of_v + FLOOR * (REAL)size));
        for (int64_t k = 0; k < size; k++)
            v[k] = f[k] + factor * v[k];
        const vector *done = v;
        for (int64_t i = 0; i < n_irreps; done += dims[i] * widths[i], i++) {
            const int64_t n = dims[i] * widths[i];
            for (int64_t lane = 0; lane < here; lane++) {
                REAL *item = out[i] + (block + lane) * n;
                for (int64_t k = 0; k < n; k++)
                    item[k] = ((const REAL *)(done + k))[lane];
            }
        }
    }
}
