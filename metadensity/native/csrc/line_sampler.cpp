// One line of the cached sampler: all pixels of the last space dimension, through all layers, for a range of images.
//
// The arithmetic is that of CachedSampler._step in sampling/cached.py, in the same order but for rounding. No library is
// used. Matrices are (in, out), out padded to a multiple of PAD numbers and vectorised; images are blocked by four,
// so that a weight is loaded once for four of them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/layout.h"
#include "common/scratch.h"

constexpr int64_t PAD = 16;  // PAD in native/line_sampler.py: outputs of matrices are padded to a multiple of it
constexpr int64_t BYTES = WIDTH * sizeof(float);      // of a register
constexpr int64_t MOST = REGISTERS == 32 ? 4 : 2;  // vectors of outputs that are held in registers for four images

template <class T>
struct Line {  // _Line in native/line_sampler.py, in the same order
    int64_t batch, layers, planes, places, reach, channels, levels, features, middle, attention, tasks, entries, space_dims;
    const int64_t *taps, *starts, *inputs, *dilations, *slots, *base_places;
    T* const* lines;
    const T *const *bases, *const *kernels, *const *residuals, *const *residual_biases;
    const T *skips, *skip_bias, *penult, *penult_bias, *hidden, *hidden_bias, *previous, *logits, *logits_bias;
    const T *query, *query_bias, *keys, *values, *score, *reads;
    const T* positions;  // (places, space_dims) of this line
    const float* uniforms;  // (batch, channels, places)
    const int64_t* known;   // the same, -1 where a pixel is to be drawn; or null
    int64_t* pixels;        // the same
    double temperature;
};

#define LINE_FIELDS(F, T)                                                                                              \
    F(T, batch) F(T, layers) F(T, planes) F(T, places) F(T, reach) F(T, channels) F(T, levels) F(T, features)          \
    F(T, middle) F(T, attention) F(T, tasks) F(T, entries) F(T, space_dims) F(T, taps) F(T, starts) F(T, inputs)             \
    F(T, dilations) F(T, slots) F(T, base_places) F(T, lines) F(T, bases) F(T, kernels) F(T, residuals)                \
    F(T, residual_biases) F(T, skips)                                                                                  \
    F(T, skip_bias) F(T, penult) F(T, penult_bias) F(T, hidden) F(T, hidden_bias) F(T, previous) F(T, logits)          \
    F(T, logits_bias) F(T, query) F(T, query_bias) F(T, keys) F(T, values) F(T, score) F(T, reads) F(T, positions)     \
    F(T, uniforms) F(T, known) F(T, pixels) F(T, temperature)
LAYOUT(line_sampler, Line<float>, LINE_FIELDS)  // that of Line<double> is the same: it is all pointers

inline int64_t wide(int64_t n) { return (n + PAD - 1) / PAD * PAD; }

template <class T>
struct Vector {
    static constexpr int64_t SIZE = BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
};

// out = start + in @ weight for ROWS images and COLUMNS vectors of outputs.
template <class T, int ROWS, int COLUMNS>
inline void block(T* out, int64_t out_step, const T* in, int64_t in_step, const T* weight, int64_t width, int64_t depth,
                  const T* start, int64_t start_step) {
    typedef typename Vector<T>::type V;
    constexpr int64_t SIZE = Vector<T>::SIZE;
    V sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++)
            sums[r][c] = start ? *(const V*)(start + r * start_step + c * SIZE) : V{} ;
    for (int64_t k = 0; k < depth; k++)
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; c < COLUMNS; c++)
                sums[r][c] += in[r * in_step + k] * *(const V*)(weight + k * width + c * SIZE);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) *(V*)(out + r * out_step + c * SIZE) = sums[r][c];
}

template <class T, int ROWS>
inline void rows_of(T* out, int64_t out_step, const T* in, int64_t in_step, const T* weight, int64_t width,
                    int64_t depth, const T* start, int64_t start_step) {
    constexpr int64_t SIZE = Vector<T>::SIZE;
    int64_t c = 0;
    for (; c + MOST * SIZE <= width; c += MOST * SIZE)
        block<T, ROWS, MOST>(out + c, out_step, in, in_step, weight + c, width, depth, start ? start + c : start, start_step);
    for (; c + 2 * SIZE <= width; c += 2 * SIZE)
        block<T, ROWS, 2>(out + c, out_step, in, in_step, weight + c, width, depth, start ? start + c : start, start_step);
    for (; c < width; c += SIZE)
        block<T, ROWS, 1>(out + c, out_step, in, in_step, weight + c, width, depth, start ? start + c : start, start_step);
}

// out (rows, width) = start (a row each, one for all if start_step is 0, or zeros if null) + in (rows, depth) @ weight.
template <class T>
void product(int64_t rows, T* out, int64_t out_step, const T* in, int64_t in_step, const T* weight, int64_t width,
             int64_t depth, const T* start, int64_t start_step) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        rows_of<T, 4>(out + r * out_step, out_step, in + r * in_step, in_step, weight, width, depth,
                      start ? start + r * start_step : start, start_step);
    for (; r < rows; r++)
        rows_of<T, 1>(out + r * out_step, out_step, in + r * in_step, in_step, weight, width, depth,
                      start ? start + r * start_step : start, start_step);
}

// exp to about one unit in the last place, in a form that compilers vectorise (Cephes, S. Moshier: expf).
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    const float shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to a whole number
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}
inline double exponential(double x) { return std::exp(x); }

template <class T>
inline T sigmoid(T x) { return T(1) / (T(1) + exponential(-x)); }
template <class T>
inline T hyperbolic_tangent(T x) { return T(1) - T(2) / (T(1) + exponential(T(2) * x)); }

// What is computed of a place of ``rows`` images. All is zero at first, as padding must be.
template <class T>
struct Place {
    int64_t planes, features, levels, entries, readers;  // padded; layers that read
    T *z, *state, *residual, *gates, *total, *hidden_in, *hidden, *logits, *read_gates, *read, *weights, *window;

    Place(Scratch& scratch, const Line<T>& net, int64_t rows)
        : planes(wide(net.planes)), features(wide(net.features)), levels(wide(net.levels)), entries(wide(net.entries)),
          readers(net.attention ? net.layers - net.middle : 0) {
        auto take = [&](int64_t width) { return (T*)scratch.take(rows * width * sizeof(T) / sizeof(float), true); };
        z = take(2 * planes), state = take(planes), residual = take(planes), gates = take(net.layers * net.planes);
        total = take(features), hidden_in = take(features), hidden = take(features), logits = take(levels);
        read_gates = take(2 * planes * readers), read = take(planes), weights = take(entries);
        window = take(*std::max_element(net.taps, net.taps + net.layers));
    }
};

// What image b reads from the supports of its task, given the activations of the middle layer: (values).
template <class T>
void attend(const Line<T>& net, int64_t task, const T* state, T* query, T* weights, T* read) {
    const int64_t broad = wide(net.planes), entries = wide(net.entries);
    const T* keys = net.keys + task * net.planes * entries;  // (keys, entries)
    rows_of<T, 1>(query, broad, state, broad, net.query, broad, net.planes, net.query_bias, 0);
    if (net.attention == 1) {
        const T scale = T(1) / std::sqrt(T(net.planes));
        for (int64_t k = 0; k < net.planes; k++) query[k] *= scale;
        rows_of<T, 1>(weights, entries, query, broad, keys, entries, net.planes, nullptr, 0);
    } else {
        std::fill(weights, weights + entries, T(0));
        for (int64_t k = 0; k < net.planes; k++) {
            const T given = query[k], factor = net.score[k];
            const T* own = keys + k * entries;
            for (int64_t j = 0; j < entries; j++) weights[j] += factor * hyperbolic_tangent(given + own[j]);
        }
    }
    const T largest = *std::max_element(weights, weights + net.entries);
    T sum = 0;
    for (int64_t j = 0; j < net.entries; j++) weights[j] = exponential(weights[j] - largest);
    for (int64_t j = 0; j < net.entries; j++) sum += weights[j];
    rows_of<T, 1>(read, broad, weights, entries, net.values + task * net.entries * broad, broad, net.entries, nullptr, 0);
    for (int64_t k = 0; k < net.planes; k++) read[k] /= sum;
}

// As invert_cdf in likelihoods/levels.py, in double.
template <class T>
int64_t invert_cdf(const T* logits, int64_t levels, double temperature, float uniform) {
    const double largest = *std::max_element(logits, logits + levels);
    double sum = 0, reached = 0;
    for (int64_t l = 0; l < levels; l++) sum += std::exp((logits[l] - largest) / temperature);
    int64_t level = 0;
    for (int64_t l = 0; l < levels; l++) {
        reached += std::exp((logits[l] - largest) / temperature) / sum;
        level += uniform >= reached;
    }
    return std::min(level, levels - 1);
}

// Inputs of layer i for ``rows`` images: a line of the whole, or of a dilated network a ring of what its kernel spans.
// Place t has slot (t + reach) % slots, and those of a line that has not begun are zero.
template <class T>
struct Inputs {
    int64_t size, slots, taps, start, dilation, length;
    T* line;

    Inputs(const Line<T>& net, int64_t i, int64_t first)
        : size(net.inputs[i]), slots(net.slots[i]), taps(net.taps[i] / size), start(net.starts[i]),
          dilation(net.dilations[i]), length(slots * size), line(net.lines[i] + first * length) {}

    T* at(int64_t place, int64_t row) const { return line + row * length + place % slots * size; }

    // z = base + what the kernel looks at from place t @ weight.
    void multiply(int64_t rows, int64_t t, T* window, T* z, const T* weight, int64_t width, const T* base) const {
        const int64_t from = (t + start) % slots, together = taps * size;
        if (dilation == 1 && from + taps <= slots) {
            product(rows, z, width, line + from * size, length, weight, width, together, base, width);
            return;
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < taps; j++)
                std::memcpy(window + r * together + j * size, at(t + start + j * dilation, r), size * sizeof(T));
        product(rows, z, width, window, together, weight, width, together, base, width);
    }
};

template <class T>
void draw_line(const Line<T>& net, int64_t first, int64_t last) {
    const int64_t P = net.planes, F = net.features, L = net.layers, rows = last - first;
    const Place<T> own = in_scratch<Place<T>>(net, rows);
    const int64_t wide = own.planes, broad = own.features, levels = own.levels, entries = own.entries;
    const int64_t readers = own.readers;
    T *z = own.z, *state = own.state, *residual = own.residual, *gates = own.gates, *total = own.total;
    T *features = own.hidden_in, *hidden = own.hidden, *logits = own.logits;
    T *read_gates = own.read_gates, *read = own.read, *weights = own.weights;
    const T two = T(2) / T(net.levels - 1);
    const Inputs<T> pixels(net, 0, first);

    for (int64_t i = 0; i < L; i++)  // what a ring holds is of the line before
        if (net.slots[i] < net.places + net.reach) {
            const Inputs<T> inputs(net, i, first);
            std::fill(inputs.line, inputs.line + rows * inputs.length, T(0));
        }
    for (int64_t t = 0; t < net.places; t++) {
        for (int64_t i = 0; i < L; i++) {
            const Inputs<T> inputs(net, i, first);
            if (i)
                for (int64_t r = 0; r < rows; r++)
                    std::memcpy(inputs.at(t + net.reach, r), state + r * wide, P * sizeof(T));
            if (net.attention && i == net.middle) {
                for (int64_t r = 0; r < rows; r++)
                    attend(net, (first + r) % net.tasks, state + r * wide, residual + r * wide, weights + r * entries,
                           read + r * wide);
                product(rows, read_gates, 2 * wide * readers, read, wide, net.reads, 2 * wide * readers, P, (T*)nullptr,
                        0);
            }
            const T* base = net.bases[i] + (std::min(t, net.base_places[i] - 1) * net.batch + first) * 2 * wide;
            inputs.multiply(rows, t, own.window, z, net.kernels[i], 2 * wide, base);
            if (net.attention && i >= net.middle)
                for (int64_t r = 0; r < rows; r++) {
                    const T* own = read_gates + (r * readers + i - net.middle) * 2 * wide;
                    for (int64_t c = 0; c < 2 * wide; c++) z[r * 2 * wide + c] += own[c];
                }
            for (int64_t r = 0; r < rows; r++) {
                const T *a = z + r * 2 * wide, *b = a + wide;
                T* gated = gates + (r * L + i) * P;
                for (int64_t c = 0; c < P; c++) gated[c] = hyperbolic_tangent(a[c]) * sigmoid(b[c]);
            }
            if (i + 1 == L) break;  // the last residual goes nowhere
            product(rows, residual, wide, gates + i * P, L * P, net.residuals[i], wide, P, net.residual_biases[i],
                    (int64_t)0);
            if (i)
                for (int64_t c = 0; c < rows * wide; c++) state[c] += residual[c];
            else
                std::memcpy(state, residual, rows * wide * sizeof(T));
        }
        product(rows, total, broad, gates, L * P, net.skips, broad, L * P, net.skip_bias, (int64_t)0);
        for (int64_t c = 0; c < rows * broad; c++) total[c] = std::max(total[c], T(0));
        product(rows, features, broad, total, broad, net.penult, broad, F, net.penult_bias, (int64_t)0);
        for (int64_t c = 0; c < rows * broad; c++) features[c] = std::max(features[c], T(0));
        for (int64_t r = 0; r < rows; r++)
            std::memcpy(pixels.at(t + net.reach, r) + net.channels, net.positions + t * net.space_dims,
                        net.space_dims * sizeof(T));
        for (int64_t channel = 0; channel < net.channels; channel++) {
            product(rows, hidden, broad, features, broad, net.hidden + channel * F * broad, broad, F,
                    net.hidden_bias + channel * broad, (int64_t)0);
            for (int64_t r = 0; r < rows; r++) {
                const T* seen = pixels.at(t + net.reach, r);  // the channels before
                T* own = hidden + r * broad;
                for (int64_t before = 0; before < channel; before++) {
                    const T* weight = net.previous + (channel * net.channels + before) * broad;
                    for (int64_t c = 0; c < broad; c++) own[c] += seen[before] * weight[c];
                }
                for (int64_t c = 0; c < broad; c++) own[c] = std::max(own[c], T(0));
            }
            product(rows, logits, levels, hidden, broad, net.logits + channel * F * levels, levels, F,
                    net.logits_bias + channel * levels, (int64_t)0);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t index = ((first + r) * net.channels + channel) * net.places + t;
                const bool given = net.known && net.known[index] >= 0;
                const int64_t level = given ? net.known[index]
                                            : invert_cdf(logits + r * levels, net.levels, net.temperature,
                                                         net.uniforms[index]);
                net.pixels[index] = level;
                pixels.at(t + net.reach, r)[channel] = T(level) * two - T(1);
            }
        }
    }
}

extern "C" {
void line_float(const Line<float>* net, int64_t first, int64_t last) { draw_line(*net, first, last); }
void line_double(const Line<double>* net, int64_t first, int64_t last) { draw_line(*net, first, last); }
}
