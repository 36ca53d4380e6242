/* Images and videos in a prompt.  Each <image> or <video> in the text is replaced by start tag, embedding rows and end
 * tag of the next one; what no tag asks for goes in front of the text. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

typedef struct {
    const char *tag, *start, *end;
    const float *rows;
    size_t per_item, n_items, used;
    uint64_t shape;
} media;

static void describe(const sim_run *run, const RKLLMInput *input, media kinds[2]) {
    const sim_handle *h = run->handle;
    kinds[0] = (media){.tag = "<image>"};
    kinds[1] = (media){.tag = "<video>"};
#if SIM_HAS_PER_RUN
    const RKLLMMultiModalInput *in = &input->multimodal_input;
    kinds[0] = (media){"<image>", in->image.image_start, in->image.image_end, in->image.image_embed,
                       in->image.n_image_tokens, in->image.n_image, 0,
                       sim_mix(in->image.image_width, in->image.image_height)};
    size_t frames = in->video.n_frame_per_video, each = in->video.n_frame_tokens;
    size_t limit = (size_t)h->max_context + 1; /* a product beyond it is too long in any case */
    kinds[1] = (media){"<video>", in->video.video_start, in->video.video_end, in->video.video_embed,
                       each && frames > limit / each ? limit : frames * each, in->video.n_video, 0,
                       sim_mix(in->video.frame_width, in->video.frame_height)};
#elif SIM_HAS_IMAGES
    size_t n = input->multimodal_input.n_image; /* 0 from programs of 1.2.0, which knew one image only */
    kinds[0] = (media){"<image>", h->image_start, h->image_end, input->multimodal_input.image_embed,
                       input->multimodal_input.n_image_tokens, n ? n : 1, 0,
                       sim_mix(input->multimodal_input.image_width, input->multimodal_input.image_height)};
#else
    kinds[0] = (media){"<image>", h->image_start, h->image_end, input->multimodal_input.image_embed,
                       input->multimodal_input.n_image_tokens, 1, 0, sim_mix(0, 0)};
#endif
    (void)h;
    for (size_t i = 0; i < 2; i++)
        if (!kinds[i].rows || !kinds[i].per_item) kinds[i].n_items = 0;
}

static bool put(sim_run *run, media *kind, sim_tokens *out) {
    size_t width = (size_t)run->handle->model.embedding_size;
    const float *rows = kind->rows + kind->used++ * kind->per_item * width;
    size_t first = out->len;
    bool ok = sim_read_prompt(run, kind->start ? kind->start : "", out);
    size_t begin = out->len;
    ok = ok && sim_read_rows(run, rows, kind->per_item, out);
    if (ok && out->len > begin) out->at[begin].fold = sim_mix(out->at[begin].fold, kind->shape);
    ok = ok && sim_read_prompt(run, kind->end ? kind->end : "", out);
    if (ok && out->len - first > (size_t)run->handle->max_context) {
        sim_log('E', "the length of prompt is greater than max context");
        return false;
    }
    return ok;
}

static size_t count_tag(const char *text, const char *tag) {
    size_t n = 0;
    while ((text = strstr(text, tag))) text += strlen(tag), n++;
    return n;
}

/* The tag that comes next in the text and still has something to show; NULL at the end. */
static char *next_tag(char *text, media kinds[2], media **kind) {
    char *first = NULL;
    for (size_t i = 0; i < 2; i++) {
        char *at = kinds[i].used < kinds[i].n_items ? strstr(text, kinds[i].tag) : NULL;
        if (at && (!first || at < first)) {
            first = at;
            *kind = &kinds[i];
        }
    }
    return first;
}

bool sim_read_media(sim_run *run, const RKLLMInput *input, const char *prompt, sim_tokens *out) {
    media kinds[2], *kind = NULL;
    describe(run, input, kinds);
    for (size_t i = 0; i < 2; i++) {
        size_t asked = count_tag(prompt, kinds[i].tag);
        while (kinds[i].used + asked < kinds[i].n_items)
            if (out->len > (size_t)run->handle->max_context || !put(run, &kinds[i], out)) return false;
    }
    char *text = sim_copy(prompt), *at = text;
    bool ok = text != NULL;
    for (char *tag; ok && (tag = next_tag(at, kinds, &kind));) {
        *tag = 0;
        ok = sim_read_prompt(run, at, out) && put(run, kind, out) && out->len <= 2 * (size_t)run->handle->max_context;
        at = tag + strlen(kind->tag);
    }
    ok = ok && sim_read_prompt(run, at, out);
    free(text);
    return ok;
}
