// LSTM cells over a map, a step at a time, forward and backward: lstm_scan in nn/functional/lstm_scan.py.
//
// Maps are float32 with the features of a place after one another, (places, batch, features). A thread takes a direction
// and some images of the batch through all steps; the cells of a step, of these images, are the rows of its products,
// with the inputs gathered from their places. States are written to where their places are. Pre-activations lie as the
// gates do, o, f, i, g, with zeros up to a multiple of a vector. Each thread adds up its own gradients of weights.

#include "common/layout.h"
#include "common/products.h"

struct Scan {  // _Scan in native/lstm_scan.py, in the same order
    int64_t directions, places, batch, inputs, planes, taps, carry, steps, longest;
    // starts: the first cell of each step, and how many there are. links: (steps, taps, 3), see Link in Python.
    const int64_t *starts, *links, *order;  // order: (directions, places), the places of the cells
    const float *x, *bias;                  // (places, batch, inputs), (directions, batch, 4 * planes)
    // Weights inputs first, and turned, their rows padded to whole vectors: (directions, inputs, 4 * planes) ...
    const float *own, *own_turned, *read, *read_turned, *hidden, *memory;
    float *states, *saved;  // (directions, places, batch, planes), (directions, batch, places, 6 * planes) or null
    // Of the gradient only. sums: of each thread, zero at first: of ``own``, of ``read``, of pre-activations whose taps
    // are beyond the border, and of the memory that comes from there.
    const float* grad_states;
    float *grad_x, *grad_bias, *sums;  // grad_x: (directions, places, batch, inputs)
};

#define SCAN_FIELDS(F, T)                                                                                              \
    F(T, directions) F(T, places) F(T, batch) F(T, inputs) F(T, planes) F(T, taps) F(T, carry) F(T, steps)             \
    F(T, longest) F(T, starts) F(T, links) F(T, order) F(T, x) F(T, bias) F(T, own) F(T, own_turned) F(T, read)        \
    F(T, read_turned) F(T, hidden) F(T, memory) F(T, states) F(T, saved) F(T, grad_states) F(T, grad_x)                \
    F(T, grad_bias) F(T, sums)

LAYOUT(lstm_scan, Scan, SCAN_FIELDS)

// Numbers that may be fewer than a vector.
inline V load_some(int64_t count, const float* at) {
    if (count >= WIDTH) return load(at);
    V found{};
    std::memcpy(&found, at, count * sizeof(float));
    return found;
}
inline void store_some(int64_t count, float* at, V value) {
    if (count >= WIDTH) return store(at, value);
    std::memcpy(at, &value, count * sizeof(float));
}

// What both directions of differentiation need, of one direction of the map and images ``first`` to ``last``.
struct Shared {
    const Scan& s;
    int64_t d, first, count, wide, deep;  // wide, deep: pre-activations and planes, up to whole vectors
    float *x, *z;
    const int64_t* order;

    Shared(Scratch& scratch, const Scan& s, int64_t d, int64_t first, int64_t last)
        : s(s), d(d), first(first), count(last - first), wide(padded(4 * s.planes)), deep(padded(s.planes)),
          x(scratch.take(s.longest * count * s.inputs)), z(scratch.take(s.longest * count * wide, true)),
          order(s.order + d * s.places) {}

    int64_t cells(int64_t k) const { return s.starts[k + 1] - s.starts[k]; }
    // The rows of ``features`` numbers of cell ``cell`` of a map (places, batch, features).
    template <class T>
    T* at(T* map, int64_t cell, int64_t features) const {
        return map + (order[cell] * s.batch + first) * features;
    }
    void gather(int64_t k, const float* map, int64_t features, float* to, int64_t step) const {
        for (int64_t cell = s.starts[k]; cell < s.starts[k + 1]; cell++, to += count * step)
            rows_in(count, features, at(map, cell, features), to, step);
    }
    float* saved(int64_t k) const {
        return s.saved + ((d * s.batch + first) * s.places + s.starts[k] * count) * 6 * s.planes;
    }
    // ``call(tap, row, source, rows)`` for what the rows of step k read of those of the step before, and
    // ``beyond(tap, row, rows)`` for what they read beyond the border.
    template <class F, class G>
    void each_link(int64_t k, const F& call, const G& beyond) const {
        const int64_t start = s.starts[k], before = k ? s.starts[k - 1] : 0;
        for (int64_t tap = 0; tap < s.taps; tap++) {
            const int64_t* link = s.links + (k * s.taps + tap) * 3;
            const int64_t row = link[0] - start, rows = link[2];
            if (rows) call(tap, row * count, (link[1] - before) * count, rows * count);
            if (row) beyond(tap, 0, row * count);
            if (row + rows < cells(k)) beyond(tap, (row + rows) * count, (cells(k) - row - rows) * count);
        }
    }
};

struct Forward : Shared {
    float *h, *c, *before, *bias, *edges;

    Forward(Scratch& scratch, const Scan& s, int64_t d, int64_t first, int64_t last) : Shared(scratch, s, d, first, last) {
        const int64_t size = s.longest * count * s.planes;
        h = scratch.take(size), c = scratch.take(size), before = scratch.take(size);
        bias = scratch.take(count * wide, true), edges = scratch.take(s.taps * wide, true);
        if (!bias) return;
        rows_in(count, 4 * s.planes, s.bias + (d * s.batch + first) * 4 * s.planes, bias, wide);
        for (int64_t tap = 0; tap < s.taps; tap++)
            multiply<BY_ROWS>(1, wide, {s.hidden + d * s.planes, s.planes, s.planes}, weight(tap), wide,
                              edges + tap * wide, wide, {nullptr, 0});
    }
    const float* weight(int64_t tap) const { return s.read + (d * s.taps + tap) * s.planes * wide; }

    void run() {
        const int64_t planes = s.planes;
        for (int64_t k = 0; k < s.steps; k++) {
            const int64_t rows = cells(k) * count;
            gather(k, s.x, s.inputs, x, s.inputs);
            for (int64_t cell = 0; cell < cells(k); cell++) std::memcpy(z + cell * count * wide, bias, count * wide * 4);
            multiply<BY_ROWS>(rows, wide, {x, s.inputs, s.inputs}, s.own + d * s.inputs * wide, wide, z, wide, {z, wide});
            each_link(
                k,
                [&](int64_t tap, int64_t row, int64_t source, int64_t size) {
                    float* to = z + row * wide;
                    multiply<BY_ROWS>(size, wide, {h + source * planes, planes, planes}, weight(tap), wide, to, wide,
                                      {to, wide});
                    if (tap == s.carry) std::memcpy(before + row * planes, c + source * planes, size * planes * 4);
                },
                [&](int64_t tap, int64_t row, int64_t size) {
                    for (int64_t r = row; r < row + size; r++) {
                        copy(wide, z + r * wide, edges + tap * wide, z + r * wide);
                        if (tap == s.carry) std::memcpy(before + r * planes, s.memory + d * planes, planes * 4);
                    }
                });
            cells_of(rows, s.saved ? saved(k) : nullptr);
            for (int64_t cell = 0; cell < cells(k); cell++)
                std::memcpy(at(s.states + d * s.places * s.batch * planes, s.starts[k] + cell, planes),
                            h + cell * count * planes, count * planes * 4);
        }
    }

   private:
    void cells_of(int64_t rows, float* to) const {
        const int64_t planes = s.planes;
        for (int64_t r = 0; r < rows; r++, to += to ? 6 * planes : 0)
            for (int64_t j = 0; j < planes; j += WIDTH) {
                const int64_t some = planes - j, own = r * planes + j;
                const float* from = z + r * wide + j;
                const V output = sigmoid(load_some(some, from)), forget = sigmoid(load_some(some, from + planes));
                const V write = sigmoid(load_some(some, from + 2 * planes));
                const V update = hyperbolic_tangent(load_some(some, from + 3 * planes));
                const V earlier = load_some(some, before + own), now = forget * earlier + write * update;
                const V bounded = hyperbolic_tangent(now);
                store_some(some, c + own, now), store_some(some, h + own, output * bounded);
                if (!to) continue;
                const V kept[] = {output, forget, write, update, earlier, bounded};
                for (int64_t i = 0; i < 6; i++) store_some(some, to + i * planes + j, kept[i]);
            }
    }
};

struct Backward : Shared {
    float *slopes, *later, *before, *given, *c, *h, *back, *bias;
    float *of_own, *of_read, *of_edges, *of_memory;

    Backward(Scratch& scratch, const Scan& s, int64_t d, int64_t first, int64_t last, float* sums)
        : Shared(scratch, s, d, first, last) {
        const int64_t most = s.longest * count;
        slopes = z, later = scratch.take(most * wide, true), given = scratch.take(most * deep, true);
        before = scratch.take(most * s.planes), c = scratch.take(most * s.planes), h = scratch.take(most * s.planes);
        back = scratch.take(most * padded(s.inputs)), bias = scratch.take(count * wide, true);
        of_own = sums, of_read = of_own + s.inputs * wide, of_edges = of_read + s.taps * s.planes * wide;
        of_memory = of_edges + s.taps * wide;
    }

    void run() {
        const int64_t planes = s.planes, columns = padded(s.inputs);
        const float* states = s.states + d * s.places * s.batch * planes;
        for (int64_t k = s.steps; k-- > 0;) {
            const int64_t rows = cells(k) * count;
            gather(k, s.grad_states + d * s.places * s.batch * planes, planes, given, deep);
            std::memset(c, 0, rows * planes * 4);
            if (k + 1 < s.steps)
                each_link(
                    k + 1,
                    [&](int64_t tap, int64_t row, int64_t source, int64_t size) {
                        const float* turned = s.read_turned + (d * s.taps + tap) * wide * deep;
                        multiply<BY_ROWS>(size, deep, {later + row * wide, wide, 4 * planes}, turned, deep,
                                          given + source * deep, deep, {given + source * deep, deep});
                        if (tap == s.carry)
                            std::memcpy(c + source * planes, before + row * planes, size * planes * 4);
                    },
                    [](int64_t, int64_t, int64_t) {});
            slopes_of(rows, saved(k));
            for (int64_t r = 0; r < rows; r++) copy(wide, bias + r % count * wide, slopes + r * wide, bias + r % count * wide);
            gather(k, s.x, s.inputs, x, s.inputs);
            multiply<BY_COLUMNS>(s.inputs, wide, {x, s.inputs, rows}, slopes, wide, of_own, wide, {of_own, wide});
            multiply<BY_ROWS>(rows, columns, {slopes, wide, 4 * planes}, s.own_turned + d * wide * columns, columns,
                              back, columns, {nullptr, 0});
            for (int64_t cell = 0; cell < cells(k); cell++)
                rows_out(count, s.inputs, back + cell * count * columns, columns, nullptr,
                         at(s.grad_x + d * s.places * s.batch * s.inputs, s.starts[k] + cell, s.inputs));
            if (k) gather(k - 1, states, planes, h, planes);
            each_link(
                k,
                [&](int64_t tap, int64_t row, int64_t source, int64_t size) {
                    float* sum = of_read + tap * planes * wide;
                    multiply<BY_COLUMNS>(planes, wide, {h + source * planes, planes, size}, slopes + row * wide, wide,
                                         sum, wide, {sum, wide});
                },
                [&](int64_t tap, int64_t row, int64_t size) {
                    add_rows(size, wide, slopes + row * wide, of_edges + tap * wide);
                    if (tap == s.carry)
                        for (int64_t r = row; r < row + size; r++)
                            copy(planes, of_memory, before + r * planes, of_memory);
                });
            std::swap(slopes, later);
        }
        rows_out(count, 4 * s.planes, bias, wide, nullptr, s.grad_bias + (d * s.batch + first) * 4 * s.planes);
    }

   private:
    // Those of pre-activations to ``slopes``, and of the memory that a cell began with to ``before``.
    void slopes_of(int64_t rows, const float* kept) {
        const int64_t planes = s.planes;
        for (int64_t r = 0; r < rows; r++, kept += 6 * planes)
            for (int64_t j = 0; j < planes; j += WIDTH) {
                const int64_t some = planes - j, own = r * planes + j;
                V now[6];
                for (int64_t i = 0; i < 6; i++) now[i] = load_some(some, kept + i * planes + j);
                const V output = now[0], forget = now[1], write = now[2], update = now[3], earlier = now[4], bounded = now[5];
                const V slope = load(given + r * deep + j);
                const V memory = load_some(some, c + own) + slope * output * (1.0f - bounded * bounded);
                const V found[] = {slope * bounded * output * (1.0f - output), memory * earlier * forget * (1.0f - forget),
                                   memory * update * write * (1.0f - write), memory * write * (1.0f - update * update)};
                for (int64_t i = 0; i < 4; i++) store_some(some, slopes + r * wide + i * planes + j, found[i]);
                store_some(some, before + own, memory * forget);
            }
    }
};

// ``call(direction, first, last)`` for images ``first`` to ``last`` of directions times batch.
template <class F>
void in_directions(const Scan& s, int64_t first, int64_t last, const F& call) {
    for (int64_t d = first / s.batch; d * s.batch < last; d++)
        call(d, std::max(first - d * s.batch, int64_t(0)), std::min(last - d * s.batch, s.batch));
}

extern "C" {
void scan_forward(const Scan* s, int64_t, int64_t first, int64_t last) {
    in_directions(*s, first, last, [&](int64_t d, int64_t start, int64_t end) {
        in_scratch<Forward>(*s, d, start, end).run();
    });
}

// Each thread adds to sums of its own, of each direction.
void scan_backward(const Scan* s, int64_t thread, int64_t first, int64_t last) {
    const int64_t wide = padded(4 * s->planes);
    const int64_t size = (s->inputs + s->taps * s->planes + s->taps) * wide + padded(s->planes);
    in_directions(*s, first, last, [&](int64_t d, int64_t start, int64_t end) {
        in_scratch<Backward>(*s, d, start, end, s->sums + (thread * s->directions + d) * size).run();
    });
}

// Numbers of a vector, to whose multiples rows are padded.
int64_t scan_vector() { return WIDTH; }
}
