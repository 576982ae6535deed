/* Coulomb integrals (mu nu | g) of spherical charges on atoms, summed over the atoms as they are made.
 *
 * A charge is a sum over k of c_k times a normalised Gaussian of exponent a_k, the same exponents for all atoms; a_k = infinity is a
 * point. By McMurchie and Davidson (J. Comput. Phys. 26, 218 (1978)), with P, p of a pair of primitives and rho = p a / (p + a),
 *
 *   (ab | g) = sum over tuv  E_tuv(ab)  sum over atoms C, k  c_k (pi / p)^(3/2) 2 sqrt(rho / pi)  R_tuv(rho, P - C)
 *
 * so only the Boys functions are evaluated for each exponent, the recursion once for each atom and the rest once for each pair.
 * Where rho R^2 > limit(order) a Gaussian cannot be told from a point (erfc(sqrt(24)) = 4e-12); the charges of all those are added up first.
 *
 * Always double precision, whatever REAL is. A vector holds one number of each of LANES atoms; the extension is GCC's and Clang's and serves every
 * instruction set.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O2,no-math-errno") /* half of O3's time to compile, and no slower */
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8, LMAX = 4, ORDER = 2 * LMAX, HERMITE = (ORDER + 1) * (ORDER + 2) * (ORDER + 3) / 6, SETS = 4, EXPONENTS = 64 };
enum { COEFFICIENTS = 36, CARTESIAN = (LMAX + 1) * (LMAX + 2) / 2 };
#define PI 3.14159265358979323846
typedef double vector __attribute__((vector_size(LANES * sizeof(double))));
typedef double unaligned __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double))));
typedef int64_t whole __attribute__((vector_size(LANES * sizeof(int64_t))));

#define EACH _Pragma("GCC unroll 8") for (int v = 0; v < LANES; v++)

/* Where R_tuv comes from: component (0, 1, 2), the entry one below in it, and two below with its factor. */
typedef struct { int component, below, twice; double factor; } origin;

typedef struct {
    int n, start[ORDER + 2], place[ORDER + 1][ORDER + 1][ORDER + 1];
    origin from[HERMITE];
} hermite;

static void list_hermite(hermite *list)
{
    int n = 0;
    for (int order = 0; order <= ORDER; order++) {
        list->start[order] = n;
        for (int t = order; t >= 0; t--)
            for (int u = order - t; u >= 0; u--) {
                const int v = order - t - u;
                list->place[t][u][v] = n;
                origin *o = &list->from[n++];
                if (order == 0) continue;
                const int c = t ? 0 : u ? 1 : 2, power = t ? t : u ? u : v;
                o->component = c;
                o->below = list->place[t - (c == 0)][u - (c == 1)][v - (c == 2)];
                o->twice = power > 1 ? list->place[t - 2 * (c == 0)][u - 2 * (c == 1)][v - 2 * (c == 2)] : 0;
                o->factor = power - 1;
            }
    }
    list->start[ORDER + 1] = list->n = n;
}

/* Beyond, a Gaussian is a point to F_0..F_order. */
static inline double limit(int order) { return order < 2 ? 24.0 + 2.0 * order : 28.0; }

static const double INVERSE[2 * ORDER] = {0, 1, 1. / 2, 1. / 3, 1. / 4, 1. / 5, 1. / 6, 1. / 7, 1. / 8, 1. / 9, 1. / 10, 1. / 11, 1. / 12,
                                          1. / 13, 1. / 14, 1. / 15};

static inline vector load(const double *from) { return *(const unaligned *)from; }

static inline vector root(vector of)
{
    vector found;
    EACH found[v] = sqrt(of[v]); /* one instruction, where the compiler sees it */
    return found;
}

static const double FACTORIAL[12] = {1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880, 1. / 3628800,
                                     1. / 39916800}; /* their inverses */

/* exp(-T) of arguments in 0..limit: a power of two times exp(r), |r| < ln(2) / 2. */
static inline vector decay(vector T)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: the last bits of a sum with it are the rounded number */
    const vector shifted = magic - T * 1.4426950408889634;
    const vector power = shifted - magic, r = -T - power * 0.693147180369123816490 - power * 1.90821492927058770002e-10;
    vector e = FACTORIAL[10] + r * FACTORIAL[11];
#pragma GCC unroll 16
    for (int m = 9; m >= 0; m--) e = FACTORIAL[m] + e * r;
    return (vector)((whole)e + ((whole)shifted << 52));
}

/* F_0..F_order of arguments in 0..limit(order): F_order is a polynomial of x = 2 T / limit - 1, in four interleaved parts. */
static inline __attribute__((always_inline)) void boys(const int order, const double *polynomials, vector T, vector *F)
{
    const double *c = polynomials + order * COEFFICIENTS;
    const vector x = T * (2.0 / limit(order)) - 1.0, x2 = x * x, x4 = x2 * x2;
    vector part[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        part[i] = c[COEFFICIENTS - 4 + i] + (vector){0};
#pragma GCC unroll 8
        for (int j = COEFFICIENTS - 8; j >= 0; j -= 4) part[i] = part[i] * x4 + c[j + i];
    }
    F[order] = (part[0] + x * part[1]) + x2 * (part[2] + x * part[3]);
    if (order == 0) return;
    const vector e = decay(T);
#pragma GCC unroll 8
    for (int n = order; n > 0; n--) F[n - 1] = (2.0 * T * F[n] + e) * INVERSE[2 * n - 1];
}

/* sum over atoms of the charges' R_tuv at P, (set, tuv), (pi / p)^(3/2) included. */
static inline __attribute__((always_inline)) void potential_of(const int order, const int n_sets, const hermite *list, double p, const double *P, int64_t n_atoms, const double *atoms, int n_exponents,
                      const double *exponents, const double *charges, const double *sums, const double *polynomials,
                      double out[SETS][HERMITE])
{
    double rho[EXPONENTS] __attribute__((aligned(64))), weight[ORDER + 1][EXPONENTS] __attribute__((aligned(64)));
    vector total[SETS][HERMITE];
    const double front = PI / p * sqrt(PI / p);
    for (int k = 0; k < n_exponents; k += LANES) { /* exponents are padded to whole vectors */
        const vector a = load(exponents + k), r = p / (1.0 + p * (1.0 / a));
        vector w = root(r) * (front * 2.0 / sqrt(PI));
        *(vector *)(rho + k) = r;
#pragma GCC unroll 8
        for (int n = 0; n <= order; n++) {
            *(vector *)(weight[n] + k) = w;
            w *= -2.0 * r;
        }
    }
    const int n_hermite = list->start[order + 1];
#pragma GCC unroll 8
    for (int s = 0; s < n_sets; s++)
        for (int h = 0; h < n_hermite; h++) total[s][h] = (vector){0};

    for (int64_t block = 0; block < n_atoms; block += LANES) {
        vector X[3], F[ORDER + 1], G[SETS][ORDER + 1];
        whole points = {0};
        double nearest = INFINITY;
        for (int c = 0; c < 3; c++) X[c] = P[c] - load(atoms + c * n_atoms + block);
        const vector square = X[0] * X[0] + X[1] * X[1] + X[2] * X[2];
        EACH nearest = square[v] < nearest ? square[v] : nearest;
#pragma GCC unroll 8
        for (int s = 0; s < n_sets; s++)
#pragma GCC unroll 8
            for (int n = 0; n <= order; n++) G[s][n] = (vector){0};
        int k = n_exponents - 1; /* from the widest to the narrowest */
        for (; k >= 0 && rho[k] * nearest <= limit(order); k--) {
            const vector T = rho[k] * square;
            const whole outside = T > limit(order); /* -1 where that is so */
            const vector out_of_it = __builtin_convertvector(outside, vector), inside = 1.0 + out_of_it;
            points -= outside;
            boys(order, polynomials, T * inside, F);
#pragma GCC unroll 8
            for (int s = 0; s < n_sets; s++) {
                const vector charge = inside * load(charges + (s * n_exponents + k) * n_atoms + block);
#pragma GCC unroll 8
                for (int n = 0; n <= order; n++) G[s][n] += charge * (weight[n][k] * F[n]);
            }
        }
        points += k + 1;
        int64_t any_point = 0;
        EACH any_point |= points[v];
        if (any_point) { /* 1 / R and its derivatives by R^2 / 2; an atom without points has the charge 0 */
            const vector some = __builtin_convertvector(-(points > 0), vector), inverse = some / (square + (1.0 - some));
            const vector first = front * root(inverse);
#pragma GCC unroll 8
            for (int s = 0; s < n_sets; s++) {
                const double *sum = sums + s * (n_exponents + 1) * n_atoms + block;
                vector g = {0};
                EACH g[v] = sum[points[v] * n_atoms + v];
                g *= first;
#pragma GCC unroll 8
                for (int n = 0; n <= order; n++) {
                    G[s][n] += g;
                    g *= -(2.0 * n + 1.0) * inverse;
                }
            }
        }
#pragma GCC unroll 8
        for (int s = 0; s < n_sets; s++) {
            vector R[ORDER + 1][HERMITE];
#pragma GCC unroll 8
            for (int n = 0; n <= order; n++) R[n][0] = G[s][n];
            for (int m = 1; m <= order; m++)
#pragma GCC unroll 8
                for (int n = 0; n <= order - m; n++)
                    for (int h = list->start[m]; h < list->start[m + 1]; h++) {
                        const origin *o = &list->from[h];
                        R[n][h] = X[o->component] * R[n + 1][o->below] + o->factor * R[n + 1][o->twice];
                    }
            for (int h = 0; h < n_hermite; h++) total[s][h] += R[0][h];
        }
    }
#pragma GCC unroll 8
    for (int s = 0; s < n_sets; s++)
        for (int h = 0; h < n_hermite; h++) {
            double sum = 0.0;
            EACH sum += total[s][h][v];
            out[s][h] = sum;
        }
}

/* A body of its own for orders and numbers of sets where H0 has most of its pairs: its sums stay in registers. */
static void potential(int order, int n_sets, const hermite *list, double p, const double *P, int64_t n_atoms, const double *atoms, int n_exponents,
                      const double *exponents, const double *charges, const double *sums, const double *polynomials, double out[SETS][HERMITE])
{
#define WITH(o, s) potential_of(o, s, list, p, P, n_atoms, atoms, n_exponents, exponents, charges, sums, polynomials, out)
#define OF_ORDER(o) if (order == o && n_sets == 1) WITH(o, 1); else if (order == o && n_sets == 2) WITH(o, 2)
    OF_ORDER(0);
    else OF_ORDER(1);
    else OF_ORDER(2);
    else WITH(order, n_sets);
}

/* E_t of the product of powers i and j in one direction: E[i][j][t], with a 0 behind the last. */
static void expansion(int la, int lb, double p, double to_a, double to_b, double E[LMAX + 1][LMAX + 1][ORDER + 2])
{
    const double half = 0.5 / p;
    for (int i = 0; i <= la; i++)
        for (int j = 0; j <= lb; j++) {
            double *into = E[i][j];
            into[i + j + 1] = into[i + j] = 0.0;
            if (i + j == 0) {
                into[0] = 1.0;
                continue;
            }
            const double *from = i ? E[i - 1][j] : E[i][j - 1], shift = i ? to_a : to_b;
            for (int t = 0; t < i + j; t++) into[t] = shift * from[t] + (t + 1) * from[t + 1];
            for (int t = 1; t <= i + j; t++) into[t] += half * from[t - 1];
        }
}

/* Matrices (set, ao, ao). Shells are spherical, with one contraction each.
 *   shells       (shell, 5): l, first ao, n primitives, where exponents and coefficients start in numbers
 *   centres      (shell, 3), bohr
 *   spherical    for l = 0, 1, ..: (cartesian, 2 l + 1), one after another
 *   atoms        (3, atom), bohr; n_atoms is a multiple of LANES, atoms beyond the molecule have no charge
 *   exponents    (exponent), descending; behind them there is room for whole vectors, not zero
 *   charges      (set, exponent, atom)
 *   sums         (set, exponent + 1, atom): of the charges of the first 0, 1, .. exponents
 *   polynomials  (order + 1, COEFFICIENTS): F_order in 0..limit(order), powers of x from 0 on
 *   threshold    pairs of primitives with a smaller product over p are left out
 * 0, or 1 where something is larger than this was made for. */
int64_t coulomb(int64_t n_shells, const int64_t *shells, const double *centres, const double *numbers, const double *spherical, int64_t n_atoms,
                const double *atoms, int64_t n_exponents, const double *exponents, int64_t n_sets, const double *charges, const double *sums,
                const double *polynomials, double threshold, int64_t n_ao, double *out)
{
    hermite list;
    int first_spherical[LMAX + 1], powers[LMAX + 1][CARTESIAN][3];
    if (n_sets > SETS || n_exponents > EXPONENTS || n_atoms % LANES) return 1;
    for (int64_t i = 0; i < n_shells; i++)
        if (shells[5 * i] > LMAX) return 1;
    list_hermite(&list);
    for (int l = 0, start = 0; l <= LMAX; start += (l + 1) * (l + 2) / 2 * (2 * l + 1), l++) {
        first_spherical[l] = start;
        for (int x = l, n = 0; x >= 0; x--)
            for (int y = l - x; y >= 0; y--, n++) powers[l][n][0] = x, powers[l][n][1] = y, powers[l][n][2] = l - x - y;
    }
    for (int64_t i = 0; i < n_shells; i++)
        for (int64_t j = 0; j <= i; j++) {
            const int64_t *sa = shells + 5 * i, *sb = shells + 5 * j;
            const double *A = centres + 3 * i, *B = centres + 3 * j;
            const int la = sa[0], lb = sb[0], order = la + lb, na = (la + 1) * (la + 2) / 2, nb = (lb + 1) * (lb + 2) / 2;
            double block[SETS][CARTESIAN][CARTESIAN], distance = 0.0;
            for (int c = 0; c < 3; c++) distance += (A[c] - B[c]) * (A[c] - B[c]);
            memset(block, 0, sizeof(block[0]) * n_sets);
            for (int64_t ia = 0; ia < sa[2]; ia++)
                for (int64_t ib = 0; ib < sb[2]; ib++) {
                    const double a = numbers[sa[3] + ia], b = numbers[sb[3] + ib], p = a + b;
                    const double product = numbers[sa[4] + ia] * numbers[sb[4] + ib] * exp(-a * b / p * distance);
                    double P[3], E[3][LMAX + 1][LMAX + 1][ORDER + 2], V[SETS][HERMITE];
                    if (fabs(product) / p < threshold) continue;
                    for (int c = 0; c < 3; c++) {
                        P[c] = (a * A[c] + b * B[c]) / p;
                        expansion(la, lb, p, P[c] - A[c], P[c] - B[c], E[c]);
                    }
                    potential(order, n_sets, &list, p, P, n_atoms, atoms, n_exponents, exponents, charges, sums, polynomials, V);
                    for (int m = 0; m < na; m++)
                        for (int n = 0; n < nb; n++) {
                            const int *x = powers[la][m], *y = powers[lb][n];
                            const double *ex = E[0][x[0]][y[0]], *ey = E[1][x[1]][y[1]], *ez = E[2][x[2]][y[2]];
                            double sum[SETS] = {0};
                            for (int t = 0; t <= x[0] + y[0]; t++)
                                for (int u = 0; u <= x[1] + y[1]; u++)
                                    for (int w = 0; w <= x[2] + y[2]; w++) {
                                        const double e = ex[t] * ey[u] * ez[w];
                                        const int place = list.place[t][u][w];
                                        for (int s = 0; s < n_sets; s++) sum[s] += e * V[s][place];
                                    }
                            for (int s = 0; s < n_sets; s++) block[s][m][n] += product * sum[s];
                        }
                }
            const double *ca = spherical + first_spherical[la], *cb = spherical + first_spherical[lb];
            const int wa = 2 * la + 1, wb = 2 * lb + 1;
            for (int s = 0; s < n_sets; s++)
                for (int q = 0; q < wb; q++) {
                    double half[CARTESIAN];
                    for (int m = 0; m < na; m++) {
                        half[m] = 0.0;
                        for (int n = 0; n < nb; n++) half[m] += block[s][m][n] * cb[n * wb + q];
                    }
                    for (int r = 0; r < wa; r++) {
                        double value = 0.0;
                        for (int m = 0; m < na; m++) value += ca[m * wa + r] * half[m];
                        out[(s * n_ao + sa[1] + r) * n_ao + sb[1] + q] = value;
                        out[(s * n_ao + sb[1] + q) * n_ao + sa[1] + r] = value;
                    }
                }
        }
    return 0;
}
