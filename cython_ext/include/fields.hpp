// A table of the fields of Param and RKLLMSamplingParam, so that the binding reads and writes them by name.
#ifndef RKVISOR_FIELDS_HPP
#define RKVISOR_FIELDS_HPP

#include "families.hpp"

namespace rkvisor {

enum FieldKind { FIELD_TEXT, FIELD_I32, FIELD_U32, FIELD_I8, FIELD_U8, FIELD_F32, FIELD_BOOL };

struct Field {
    const char *name;
    FieldKind kind;
    size_t offset;
    unsigned families;  // bit n is set when family Fn has the field
};

template <class T> constexpr FieldKind field_kind() {
    if constexpr (std::is_same_v<T, const char *>) return FIELD_TEXT;
    else if constexpr (std::is_same_v<T, int32_t>) return FIELD_I32;
    else if constexpr (std::is_same_v<T, uint32_t>) return FIELD_U32;
    else if constexpr (std::is_same_v<T, int8_t>) return FIELD_I8;
    else if constexpr (std::is_same_v<T, uint8_t>) return FIELD_U8;
    else if constexpr (std::is_same_v<T, float>) return FIELD_F32;
    else {
        static_assert(std::is_same_v<T, bool>, "a field of a type that the table does not know");
        return FIELD_BOOL;
    }
}

template <template <class, class> class Has, class A, class B, class C, class D> constexpr unsigned families_with() {
    // F2's RKLLMParam is F3's.
    return (Has<A, void>::value ? 1u << 1 : 0u) | (Has<B, void>::value ? 1u << 2 | 1u << 3 : 0u) |
           (Has<C, void>::value ? 1u << 4 : 0u) | (Has<D, void>::value ? 1u << 5 : 0u);
}

#define RKVISOR_BASE(field)                                                                                     \
    {#field, field_kind<decltype(f5::RKLLMParam::field)>(), offsetof(Param, base.field),                        \
     families_with<has_##field, f1::RKLLMParam, f3::RKLLMParam, f4::RKLLMParam, f5::RKLLMParam>()},
#define RKVISOR_IMAGE(field)                                                                                    \
    {#field, field_kind<decltype(Param::field)>(), offsetof(Param, field),                                      \
     families_with<has_##field, f1::RKLLMParam, f3::RKLLMParam, f4::RKLLMParam, f5::RKLLMParam>()},
#define RKVISOR_EXTEND(field)                                                                                   \
    {#field, field_kind<decltype(f5::RKLLMExtendParam::field)>(), offsetof(Param, base.extend_param.field),     \
     families_with<has_##field, f1::RKLLMExtendParam, f3::RKLLMExtendParam, f4::RKLLMExtendParam,               \
                   f5::RKLLMExtendParam>()},
#define RKVISOR_SAMPLING(field)                                                                                 \
    {#field, field_kind<decltype(f5::RKLLMSamplingParam::field)>(), offsetof(f5::RKLLMSamplingParam, field), 1u << 5},

inline constexpr Field PARAM_FIELDS[] = {
    RKVISOR_BASE_FIELDS(RKVISOR_BASE) RKVISOR_IMAGE_FIELDS(RKVISOR_IMAGE) RKVISOR_EXTEND_FIELDS(RKVISOR_EXTEND)};
inline constexpr Field SAMPLING_FIELDS[] = {RKVISOR_SAMPLING_FIELDS(RKVISOR_SAMPLING)};
inline constexpr size_t PARAM_FIELD_COUNT = sizeof PARAM_FIELDS / sizeof *PARAM_FIELDS;
inline constexpr size_t SAMPLING_FIELD_COUNT = sizeof SAMPLING_FIELDS / sizeof *SAMPLING_FIELDS;

#undef RKVISOR_BASE
#undef RKVISOR_IMAGE
#undef RKVISOR_EXTEND
#undef RKVISOR_SAMPLING

}  // namespace rkvisor

#endif
