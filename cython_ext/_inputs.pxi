# Input and Infer into F5 structs, and what a family lacks of them.  Included by _rkllm.pyx.

cdef dict _KINDS = {
    "prompt": families.RKLLM_INPUT_PROMPT,
    "tokens": families.RKLLM_INPUT_TOKEN,
    "embed": families.RKLLM_INPUT_EMBED,
    "multimodal": families.RKLLM_INPUT_MULTIMODAL,
}
cdef dict _MODES = {
    "generate": families.RKLLM_INFER_GENERATE,
    "hidden": families.RKLLM_INFER_GET_LAST_HIDDEN_LAYER,
    "logits": families.RKLLM_INFER_GET_LOGITS,
}


cdef object _needs(int family, int first, str what):
    """NotSupported unless the family is `first` or a later one."""
    if family < first:
        raise NotSupported(what, f"F{family}")


cdef object _given(object value, str name, str kind):
    if value is None:
        raise ValueError(f"cannot run an input of kind {kind!r} without {name}")
    return value


cdef object _fill_input(families.RKLLMInput *to, object source, Buffers buffers, int family):
    """One Input into the struct (zeroed); strings and arrays live in `buffers`."""
    cdef size_t count = 0
    cdef str kind = source.kind
    if kind not in _KINDS:
        raise ValueError(f"cannot run an input of kind {kind!r}: need one of {', '.join(_KINDS)}")
    if source.role != "user":
        _needs(family, 4, "role")
    if source.enable_thinking:
        _needs(family, 4, "enable_thinking")
    to.input_type = _KINDS[kind]
    to.role = buffers.text(source.role, "role")
    to.enable_thinking = bool(source.enable_thinking)
    if kind == "prompt":
        to.prompt_input = buffers.text(_given(source.prompt, "prompt", kind), "prompt")
    elif kind == "tokens":
        to.token_input.input_ids = buffers.tokens(_given(source.tokens, "tokens", kind), "tokens", &count)
        to.token_input.n_tokens = count
    elif kind == "embed":
        to.embed_input.embed = _rows(buffers, _given(source.embed, "embed", kind), "embed", source.n_tokens)
        to.embed_input.n_tokens = source.n_tokens
    else:
        if source.image is None and source.video is None:
            raise ValueError("cannot run an input of kind 'multimodal' without image or video")
        to.multimodal_input.prompt = buffers.text(_given(source.prompt, "prompt", kind), "prompt")
        if source.image is not None:
            _fill_image(&to.multimodal_input.image, source.image, buffers, family)
        if source.video is not None:
            _needs(family, 5, "video")
            _fill_video(&to.multimodal_input.video, source.video, buffers)


cdef float *_rows(Buffers buffers, object value, str what, object rows) except NULL:
    """float32 rows; their number must divide the elements, for the embedding size is the model's secret."""
    cdef size_t count = 0
    cdef float *memory = buffers.floats(value, what, &count)
    if rows < 1 or count % rows:
        raise ValueError(f"cannot use {what}: {count} elements are not {rows} rows of one size")
    return memory


cdef object _fill_image(families.ImagePart *to, object image, Buffers buffers, int family):
    if image.n_image > 1:
        _needs(family, 3, "n_image")
    for name in ("start", "end", "content"):
        if getattr(image, name) is not None:
            _needs(family, 5, f"image.{name}")
    to.image_embed = _rows(buffers, image.embed, "image.embed", image.n_image * image.n_image_tokens)
    to.n_image_tokens = image.n_image_tokens
    to.n_image = image.n_image
    to.image_width = image.width
    to.image_height = image.height
    to.image_start = buffers.text(image.start, "image.start")
    to.image_end = buffers.text(image.end, "image.end")
    to.image_content = buffers.text(image.content, "image.content")


cdef object _fill_video(families.VideoPart *to, object video, Buffers buffers):
    rows = video.n_video * video.n_frame_per_video * video.n_frame_tokens
    to.video_embed = _rows(buffers, video.embed, "video.embed", rows)
    to.n_frame_tokens = video.n_frame_tokens
    to.n_frame_per_video = video.n_frame_per_video
    to.n_video = video.n_video
    to.frame_width = video.width
    to.frame_height = video.height
    to.video_start = buffers.text(video.start, "video.start")
    to.video_end = buffers.text(video.end, "video.end")
    to.video_content = buffers.text(video.content, "video.content")


cdef object _fill_infer(families.RKLLMInferParam *to, object source, Buffers buffers, int family, dict sampling):
    """An Infer into the struct (zeroed).  sampling: the values of init, for names that source.sampling leaves out."""
    cdef families.RKLLMLoraParam *lora
    cdef families.RKLLMPromptCacheParam *cache
    if source.mode not in _MODES:
        raise ValueError(f"cannot run in mode {source.mode!r}: need one of {', '.join(_MODES)}")
    if source.mode == "logits":
        _needs(family, 2, "logits")
    to.mode = _MODES[source.mode]
    if source.keep_history:
        _needs(family, 2, "keep_history")
    to.keep_history = bool(source.keep_history)
    if source.max_new_tokens:
        _needs(family, 5, "max_new_tokens")
    to.max_new_tokens = _integer("max_new_tokens", source.max_new_tokens, 0, 0x7FFFFFFF)
    if source.sampling is not None:
        _needs(family, 5, "sampling")
        to.sampling_params = _sampling(source.sampling, buffers, sampling)
    if source.lora is not None:
        lora = <families.RKLLMLoraParam *>buffers.take(1, sizeof(families.RKLLMLoraParam),
                                                     families.HERE("RKLLMLoraParam"))
        lora.lora_adapter_name = buffers.text(source.lora, "lora")
        to.lora_params = lora
    if source.prompt_cache is not None:
        cache = <families.RKLLMPromptCacheParam *>buffers.take(1, sizeof(families.RKLLMPromptCacheParam),
                                                               families.HERE("RKLLMPromptCacheParam"))
        cache.save_prompt_cache = bool(source.save_prompt_cache)
        cache.prompt_cache_path = buffers.path(source.prompt_cache, "prompt_cache")
        to.prompt_cache_params = cache
    elif source.save_prompt_cache:
        raise ValueError("cannot save a prompt cache without prompt_cache, its path")


cdef families.RKLLMSamplingParam *_sampling(object values, Buffers buffers, dict defaults) except NULL:
    cdef void *memory = buffers.take(1, sizeof(families.RKLLMSamplingParam), families.HERE("RKLLMSamplingParam"))
    for name in values:
        if name not in _SAMPLING:
            raise TypeError(f"cannot sample by {name!r}: need names among {', '.join(_SAMPLING)}")
    for name, index in _SAMPLING.items():
        _set_field(&families.SAMPLING_FIELDS[<size_t>index], memory, values.get(name, defaults[name]), buffers)
    return <families.RKLLMSamplingParam *>memory
