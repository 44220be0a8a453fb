// Additive attention, forward and backward: queries read sum_j softmax_j(e_tj) value_j with e_tj = v' tanh(q_t + k_j).
//
// With E = exp(2 q) exp(2 k), the exponentials taken once a query and once a key, tanh(q + k) = 1 - 2 / (1 + E): a
// score takes a multiplication and a reciprocal a feature. The sum of v is the same for all j and is left out.
// Tasks are independent of one another and are what threads share.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/activations.h"
#include "common/gemm.h"
#include "common/layout.h"
#include "common/scratch.h"

struct Attention {  // _Attention in native/additive_attention.py, in the same order
    int64_t tasks, queries, keys, features, values;
    const float *query, *key, *value, *score;  // (tasks, queries | keys, features | values); score (tasks, features)
    float* attended;                           // (tasks, queries, values)
    const float* grad_attended;               // of the gradient only: that of attended
    float *grad_query, *grad_key, *grad_value, *grad_score;
};

#define ATTENTION_FIELDS(F, T)                                                                                      \
    F(T, tasks) F(T, queries) F(T, keys) F(T, features) F(T, values) F(T, query) F(T, key) F(T, value) F(T, score)  \
    F(T, attended) F(T, grad_attended) F(T, grad_query) F(T, grad_key) F(T, grad_value) F(T, grad_score)
LAYOUT(additive_attention, Attention, ATTENTION_FIELDS)

constexpr int64_t BLOCK = 8;  // queries whose products with the values are taken together

// What is known of a task: exp(2 k), features first, and its values, with zeros up to multiples of a vector.
struct Task {
    int64_t wide_keys, wide_values, wide_features;
    float *keys, *values, *weights, *queries, *attended;

    Task(Scratch& scratch, const Attention& a)
        : wide_keys(padded(a.keys)), wide_values(padded(a.values)), wide_features(padded(a.features)),
          keys(scratch.take(a.features * wide_keys)), values(scratch.take(a.keys * wide_values, true)),
          weights(scratch.take(BLOCK * wide_keys)), queries(scratch.take(BLOCK * wide_features)),
          attended(scratch.take(BLOCK * wide_values)) {}

    void begin(const Attention& a, int64_t task) {
        const float* key = a.key + task * a.keys * a.features;
        std::memset(keys, 0, a.features * wide_keys * sizeof(float));
        for (int64_t j = 0; j < a.keys; j++) {
            for (int64_t f = 0; f < a.features; f++) keys[f * wide_keys + j] = 2 * key[j * a.features + f];
            std::memcpy(values + j * wide_values, a.value + (task * a.keys + j) * a.values, a.values * sizeof(float));
        }
        for (int64_t i = 0; i < a.features * wide_keys; i += WIDTH) store(keys + i, exponential(load(keys + i)));
    }

    // exp(2 q) of ``count`` queries from ``first`` on.
    void take_queries(const Attention& a, int64_t task, int64_t first, int64_t count) {
        const float* query = a.query + (task * a.queries + first) * a.features;
        for (int64_t t = 0; t < count; t++) {
            float* own = queries + t * wide_features;
            std::memset(own, 0, wide_features * sizeof(float));
            for (int64_t f = 0; f < a.features; f++) own[f] = 2 * query[t * a.features + f];
            for (int64_t f = 0; f < wide_features; f += WIDTH) store(own + f, exponential(load(own + f)));
        }
    }

    // The softmax over the keys for query t of those taken; keeps 1 / (1 + E), (features, keys), in ``kept`` if given.
    void weigh(const Attention& a, const float* score, int64_t t, float* kept) {
        const float* query = queries + t * wide_features;
        float* own = weights + t * wide_keys;
        V most = V{} - INFINITY;
        for (int64_t j = 0; j < wide_keys; j += WIDTH) {
            V sums[2] = {};
            for (int64_t f = 0; f < a.features; f++) {
                const V r = reciprocal(query[f] * load(keys + f * wide_keys + j) + 1.0f);
                if (kept) store(kept + f * wide_keys + j, r);
                sums[f % 2] += -2 * score[f] * r;
            }
            V sum = sums[0] + sums[1];
            for (int64_t c = std::max(a.keys - j, int64_t(0)); c < WIDTH; c++) sum[c] = -INFINITY;
            store(own + j, sum);
            most = sum > most ? sum : most;
        }
        float top = -INFINITY;
        for (int64_t c = 0; c < WIDTH; c++) top = std::max(top, most[c]);
        V total = {};
        for (int64_t j = 0; j < wide_keys; j += WIDTH) {
            V shifted = load(own + j) - top;
            const Integers tiny = shifted < -80;
            shifted = tiny ? V{} - 80 : shifted;
            V weight = exponential(shifted);
            weight = tiny ? V{} : weight;  // below the rounding of the largest, which is 1
            store(own + j, weight);
            total += weight;
        }
        float sum = 0;
        for (int64_t c = 0; c < WIDTH; c++) sum += total[c];
        const float one = 1 / sum;
        for (int64_t j = 0; j < wide_keys; j += WIDTH) store(own + j, load(own + j) * one);
    }
};

static void forward(const Attention& a, int64_t first, int64_t last) {
    Task own = in_scratch<Task>(a);
    for (int64_t task = first; task < last; task++) {
        own.begin(a, task);
        for (int64_t start = 0; start < a.queries; start += BLOCK) {
            const int64_t count = std::min(BLOCK, a.queries - start);
            own.take_queries(a, task, start, count);
            for (int64_t t = 0; t < count; t++) own.weigh(a, a.score + task * a.features, t, nullptr);
            multiply<BY_ROWS>(count, own.wide_values, {own.weights, own.wide_keys, a.keys}, own.values,
                                     own.wide_values, own.attended, own.wide_values, {nullptr, 0});
            for (int64_t t = 0; t < count; t++)
                std::memcpy(a.attended + (task * a.queries + start + t) * a.values, own.attended + t * own.wide_values,
                            a.values * sizeof(float));
        }
    }
}

inline float total(V v) {
    float sum = 0;
    for (int64_t c = 0; c < WIDTH; c++) sum += v[c];
    return sum;
}

struct Gradients {
    Task task;
    float *terms, *keys, *values, *slopes, *given, *for_values, *score;  // terms: 1 / (1 + E)

    Gradients(Scratch& scratch, const Attention& a)
        : task(scratch, a), terms(scratch.take(a.features * task.wide_keys)),
          keys(scratch.take(a.features * task.wide_keys)), values(scratch.take(a.values * task.wide_keys, true)),
          slopes(scratch.take(BLOCK * task.wide_keys)), given(scratch.take(BLOCK * task.wide_values, true)),
          for_values(scratch.take(a.keys * task.wide_values)), score(scratch.take(a.features)) {}
};

static void backward(const Attention& a, int64_t first, int64_t last) {
    Gradients buffers = in_scratch<Gradients>(a);
    Task& own = buffers.task;
    const int64_t K = own.wide_keys, F = a.features;
    float *kept = buffers.terms, *grad_keys = buffers.keys, *values = buffers.values, *slopes = buffers.slopes;
    float *given = buffers.given, *grad_values = buffers.for_values, *grad_score = buffers.score;
    for (int64_t task = first; task < last; task++) {
        const float* score = a.score + task * F;
        own.begin(a, task);
        std::memset(grad_keys, 0, F * K * sizeof(float));
        std::memset(grad_values, 0, a.keys * own.wide_values * sizeof(float));
        std::memset(grad_score, 0, F * sizeof(float));
        for (int64_t j = 0; j < a.keys; j++)
            for (int64_t v = 0; v < a.values; v++) values[v * K + j] = own.values[j * own.wide_values + v];
        for (int64_t start = 0; start < a.queries; start += BLOCK) {
            const int64_t count = std::min(BLOCK, a.queries - start), place = task * a.queries + start;
            own.take_queries(a, task, start, count);
            for (int64_t t = 0; t < count; t++)
                std::memcpy(given + t * own.wide_values, a.grad_attended + (place + t) * a.values, a.values * sizeof(float));
            multiply<BY_ROWS>(count, K, {given, own.wide_values, a.values}, values, K, slopes, K, {nullptr, 0});
            for (int64_t t = 0; t < count; t++) {
                own.weigh(a, score, t, kept);
                const float* weights = own.weights + t * K;
                float* slope = slopes + t * K;
                V sums = {};
                for (int64_t j = 0; j < K; j += WIDTH) sums += load(weights + j) * load(slope + j);
                const float mean = total(sums);
                for (int64_t j = 0; j < K; j += WIDTH) store(slope + j, load(weights + j) * (load(slope + j) - mean));
                for (int64_t f = 0; f < F; f++) {  // tanh' = 4 r (1 - r) with r = 1 / (1 + E)
                    V grad_query = {}, plain = {};
                    const float* r = kept + f * K;
                    float* grad_key = grad_keys + f * K;
                    for (int64_t j = 0; j < K; j += WIDTH) {
                        const V now = load(r + j), scaled = load(slope + j) * now, change = scaled - scaled * now;
                        plain += scaled;
                        grad_query += change;
                        store(grad_key + j, load(grad_key + j) + change);
                    }
                    grad_score[f] -= 2 * total(plain);  // the sum of the slopes is zero
                    a.grad_query[(place + t) * F + f] = 4 * score[f] * total(grad_query);
                }
            }
            multiply<BY_COLUMNS>(a.keys, own.wide_values, {own.weights, K, count}, given, own.wide_values,
                                        grad_values, own.wide_values, {grad_values, own.wide_values});
        }
        for (int64_t j = 0; j < a.keys; j++) {
            float* grad_key = a.grad_key + (task * a.keys + j) * F;
            for (int64_t f = 0; f < F; f++) grad_key[f] = 4 * score[f] * grad_keys[f * K + j];
            std::memcpy(a.grad_value + (task * a.keys + j) * a.values, grad_values + j * own.wide_values,
                        a.values * sizeof(float));
        }
        std::memcpy(a.grad_score + task * F, grad_score, F * sizeof(float));
    }
}

extern "C" {
void additive_forward(const Attention* a, int64_t first, int64_t last) { forward(*a, first, last); }
void additive_backward(const Attention* a, int64_t first, int64_t last) { backward(*a, first, last); }
}
