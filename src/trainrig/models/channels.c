/* normalise and differentiate of channels.py for float32 maps; see there.
 *
 * Maps lie in memory as rows, all channels of a pixel side by side, or as planes, all pixels of a
 * channel side by side. Sums are double. They are formed over parts of fixed size, whose results
 * are added up in their order, so that the number of threads changes nothing.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef WIDEST
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
/* The widest version that the processor can run is chosen when the library is loaded. All give the
 * same bits: none contracts a product and a sum. */
#define WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDEST
#endif
#endif

#define SIDE 16    /* values that are added up side by side; a cache line */
#define HALF (SIDE / 2)
#define NEAR 1024  /* values that stay in the first cache while their columns are added up */
#define PART 32768 /* values of a part: few enough for a core's second cache, even twice */

typedef float floats __attribute__((vector_size(HALF * sizeof(float)), aligned(4), may_alias));
typedef double doubles __attribute__((vector_size(HALF * sizeof(double))));
#define WIDENED(from) __builtin_convertvector(*(const floats *)(from), doubles)

/* Add to first[k] the sum of a[. width + k], to second[k] that of its product with b. */
WIDEST static void sum_columns(const float *a, const float *b, int64_t rows, int64_t width,
                               double *first, double *second)
{
    int64_t tile = NEAR / width + 1;
    for (; rows > 0; rows -= tile, a += tile * width, b += tile * width) {
        int64_t end = (rows < tile ? rows : tile) * width;
        for (int64_t k = 0; k < width; k += SIDE) {
            doubles s0 = {0}, s1 = {0}, t0 = {0}, t1 = {0};
            for (int64_t i = k; i < end; i += width) {
                doubles v0 = WIDENED(a + i), v1 = WIDENED(a + i + HALF);
                s0 += v0;
                s1 += v1;
                t0 += v0 * WIDENED(b + i);
                t1 += v1 * WIDENED(b + i + HALF);
            }
            for (int j = 0; j < HALF; j++) {
                first[k + j] += s0[j];
                first[k + j + HALF] += s1[j];
                second[k + j] += t0[j];
                second[k + j + HALF] += t1[j];
            }
        }
    }
}

/* out = p g + q (x - m) + r, values by their place in a row of the given width. */
WIDEST static void combine_columns(const float *restrict g, const float *restrict x, int64_t rows,
                                   int64_t width, const float *restrict p, const float *restrict q,
                                   const float *restrict m, const float *restrict r,
                                   float *restrict out)
{
    for (int64_t i = 0; i < rows; i++, g += width, x += width, out += width)
        for (int64_t k = 0; k < width; k++)
            out[k] = p[k] * g[k] + (q[k] * (x[k] - m[k]) + r[k]);
}

/* out = q (x - m) + r */
WIDEST static void scale_columns(const float *restrict x, int64_t rows, int64_t width,
                                 const float *restrict q, const float *restrict m,
                                 const float *restrict r, float *restrict out)
{
    for (int64_t i = 0; i < rows; i++, x += width, out += width)
        for (int64_t k = 0; k < width; k++)
            out[k] = q[k] * (x[k] - m[k]) + r[k];
}

WIDEST static void combine_plane(const float *restrict g, const float *restrict x, int64_t pixels,
                                 float p, float q, float m, float r, float *restrict out)
{
    for (int64_t i = 0; i < pixels; i++)
        out[i] = p * g[i] + (q * (x[i] - m) + r);
}

WIDEST static void scale_plane(const float *restrict x, int64_t pixels, float q, float m, float r,
                               float *restrict out)
{
    for (int64_t i = 0; i < pixels; i++)
        out[i] = q * (x[i] - m) + r;
}

/* Return the least multiple of the channels that is one of SIDE too, or 0 if that is too long. */
static int64_t period(int64_t channels)
{
    int64_t width = channels;
    while (width % SIDE && width <= PART)
        width += channels;
    return width <= PART ? width : 0;
}

/* Sums by channel of rows: of a, and of a b. Returns 0, or 1 if there is no memory. */
static int sums_of_rows(const float *a, const float *b, int64_t pixels, int64_t channels, int threads,
                 double *first, double *second)
{
    int64_t width = period(channels), rows = width ? pixels * channels / width : 0;
    int64_t length = width ? PART / width : 1, parts = (rows + length - 1) / length;
    double *found = calloc(parts * width + 1, 2 * sizeof(double));
    if (!found)
        return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        int64_t start = part * length, count = rows - start < length ? rows - start : length;
        double *sums = found + 2 * part * width;
        sum_columns(a + start * width, b + start * width, count, width, sums, sums + width);
    }
    for (int64_t part = 0; part < parts; part++)
        for (int64_t k = 0; k < width; k++) {
            first[k % channels] += found[2 * part * width + k];
            second[k % channels] += found[(2 * part + 1) * width + k];
        }
    for (int64_t i = rows * width; i < pixels * channels; i++) {
        first[i % channels] += a[i];
        second[i % channels] += (double)a[i] * b[i];
    }
    free(found);
    return 0;
}

/* The same of planes. */
static int sums_of_planes(const float *a, const float *b, int64_t images, int64_t channels, int64_t pixels,
                   int threads, double *first, double *second)
{
    int64_t rows = pixels / SIDE;
    double *found = calloc(images * channels + 1, 2 * sizeof(double));
    if (!found)
        return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t plane = 0; plane < images * channels; plane++) {
        const float *u = a + plane * pixels, *v = b + plane * pixels;
        double s[SIDE] = {0}, t[SIDE] = {0};
        sum_columns(u, v, rows, SIDE, s, t);
        for (int64_t i = rows * SIDE; i < pixels; i++) {
            s[i % SIDE] += u[i];
            t[i % SIDE] += (double)u[i] * v[i];
        }
        for (int k = 0; k < SIDE; k++) {
            found[2 * plane] += s[k];
            found[2 * plane + 1] += t[k];
        }
    }
    for (int64_t plane = 0; plane < images * channels; plane++) {
        first[plane % channels] += found[2 * plane];
        second[plane % channels] += found[2 * plane + 1];
    }
    free(found);
    return 0;
}

/* out = p g + q (x - m) + r, values by channel; without g, q (x - m) + r. */
static int combine_rows(const float *g, const float *x, int64_t pixels, int64_t channels, int threads,
                 const float *p, const float *q, const float *m, const float *r, float *out)
{
    /* Short rows are taken together, with their values repeated. */
    int64_t repeats = channels < 64 ? 64 / channels : 1, width = repeats * channels;
    int64_t rows = pixels / repeats, length = PART / width + 1;
    int64_t parts = (rows + length - 1) / length, rest = rows * width;
    float *values = malloc(4 * width * sizeof(float));
    if (!values)
        return 1;
    for (int64_t k = 0; k < width; k++) {
        values[k] = p[k % channels];
        values[width + k] = q[k % channels];
        values[2 * width + k] = m[k % channels];
        values[3 * width + k] = r[k % channels];
    }
    p = values, q = p + width, m = q + width, r = m + width;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t part = 0; part < parts; part++) {
        int64_t first = part * length, count = rows - first < length ? rows - first : length;
        first *= width;
        if (g)
            combine_columns(g + first, x + first, count, width, p, q, m, r, out + first);
        else
            scale_columns(x + first, count, width, q, m, r, out + first);
    }
    if (g)
        combine_columns(g + rest, x + rest, 1, pixels * channels - rest, p, q, m, r, out + rest);
    else
        scale_columns(x + rest, 1, pixels * channels - rest, q, m, r, out + rest);
    free(values);
    return 0;
}

/* The same of planes. */
static int combine_planes(const float *g, const float *x, int64_t images, int64_t channels, int64_t pixels,
                   int threads, const float *p, const float *q, const float *m, const float *r,
                   float *out)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t plane = 0; plane < images * channels; plane++) {
        int64_t start = plane * pixels, c = plane % channels;
        if (g)
            combine_plane(g + start, x + start, pixels, p[c], q[c], m[c], r[c], out + start);
        else
            scale_plane(x + start, pixels, q[c], m[c], r[c], out + start);
    }
    return 0;
}

/* Maps: as planes, or as rows, whose images then are one. */
struct maps {
    int32_t planes, threads;
    int64_t images, channels, pixels;
};

static int sum(const float *a, const float *b, const struct maps *size, double *first,
               double *second)
{
    memset(first, 0, size->channels * sizeof(double));
    memset(second, 0, size->channels * sizeof(double));
    return size->planes ? sums_of_planes(a, b, size->images, size->channels, size->pixels,
                                         size->threads, first, second)
                        : sums_of_rows(a, b, size->pixels, size->channels, size->threads, first,
                                       second);
}

static int combine(const float *g, const float *x, const struct maps *size, const float *values,
                   float *out)
{
    const float *p = values, *q = p + size->channels, *m = q + size->channels,
                *r = m + size->channels;
    return size->planes ? combine_planes(g, x, size->images, size->channels, size->pixels,
                                         size->threads, p, q, m, r, out)
                        : combine_rows(g, x, size->pixels, size->channels, size->threads, p, q, m,
                                       r, out);
}

/* Unless they are given, write the statistics; write the normalised maps to out. */
int normalise(const float *x, const struct maps *size, const float *weight, const float *bias,
              double eps, int given, double *mean, double *variance, float *out)
{
    int64_t channels = size->channels;
    double n = (double)size->images * size->pixels;
    float *values = malloc(4 * channels * sizeof(float));
    int failed = !values || (!given && sum(x, x, size, mean, variance));
    if (!failed) {
        for (int64_t c = 0; c < channels; c++) {
            if (!given) {
                mean[c] /= n;
                variance[c] = variance[c] / n - mean[c] * mean[c];
                variance[c] = variance[c] < 0 ? 0 : variance[c]; /* a nan stays */
            }
            values[channels + c] = weight[c] / sqrt(variance[c] + eps);
            values[2 * channels + c] = mean[c];
            values[3 * channels + c] = bias[c];
        }
        failed = combine(NULL, x, size, values, out);
    }
    free(values);
    return failed;
}

/* Write the gradients of x, weight and bias. */
int differentiate(const float *gradient, const float *x, const struct maps *size,
                  const float *weight, const double *mean, const double *variance, double eps,
                  int training, float *of_x, float *of_weight, float *of_bias)
{
    int64_t channels = size->channels;
    double n = (double)size->images * size->pixels;
    double *totals = malloc(2 * channels * sizeof(double));
    float *values = malloc(4 * channels * sizeof(float));
    int failed = !totals || !values || sum(gradient, x, size, totals, totals + channels);
    if (!failed) {
        for (int64_t c = 0; c < channels; c++) {
            double scale = 1 / sqrt(variance[c] + eps), slope = weight[c] * scale;
            double dots = (totals[channels + c] - mean[c] * totals[c]) * scale;
            of_weight[c] = dots;
            of_bias[c] = totals[c];
            values[c] = slope;
            values[channels + c] = training ? -slope * scale * dots / n : slope;
            values[2 * channels + c] = training ? mean[c] : 0;
            values[3 * channels + c] = training ? -slope * totals[c] / n : 0;
        }
        failed = training ? combine(gradient, x, size, values, of_x)
                          : combine(NULL, gradient, size, values, of_x);
    }
    free(totals);
    free(values);
    return failed;
}
