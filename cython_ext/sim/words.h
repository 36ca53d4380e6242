/* The words of the simulated vocabulary, each written with its leading space.  Their order is their id: changing it
 * changes every simulated text. */
#ifndef RKVISOR_SIM_WORDS_H
#define RKVISOR_SIM_WORDS_H

enum { SIM_N_WIDE = 48, SIM_N_PLAIN = 201 };

/* Words with characters of two, three and four bytes. */
static const char *const sim_wide_words[SIM_N_WIDE] = {
    " café", " naïve", " über", " año", " façade", " señor", " déjà", " Zürich", " crème", " fiancé", " smörgås", " piñata",
    " Dvořák", " Łódź", " žena", " ďáblík", " δρόμος", " λόγος", " мир", " слово", " река", " ночь", " שלום", " سلام",
    " नमस्ते", " ไทย", " 日本", " 東京", " 言葉", " 世界", " 你好", " 谢谢", " 山水", " 中文", " 한국", " 사랑",
    " ありがとう", " カタカナ", " 🙂", " 🚀", " 🌍", " 🎉", " 🐍", " 👋🏽", " 💡", " €", " →", " ½",
};

static const char *const sim_plain_words[SIM_N_PLAIN] = {
    " the", " of", " and", " to", " a", " in", " is", " it", " you", " that", " he", " was", " for", " on", " are",
    " with", " as", " I", " his", " they", " be", " at", " one", " have", " this", " from", " or", " had", " by", " hot",
    " but", " some", " what", " there", " we", " can", " out", " other", " were", " all", " your", " when", " up", " use",
    " word", " how", " said", " an", " each", " she", " which", " do", " their", " time", " if", " will", " way", " about",
    " many", " then", " them", " would", " write", " like", " so", " these", " her", " long", " make", " thing", " see",
    " him", " two", " has", " look", " more", " day", " could", " go", " come", " did", " my", " sound", " no", " most",
    " number", " who", " over", " know", " water", " than", " call", " first", " people", " may", " down", " side", " been",
    " now", " find", " any", " new", " work", " part", " take", " get", " place", " made", " live", " where", " after",
    " back", " little", " only", " round", " man", " year", " came", " show", " every", " good", " me", " give", " our",
    " under", " name", " very", " through", " just", " form", " much", " great", " think", " say", " help", " low", " line",
    " before", " turn", " cause", " same", " mean", " differ", " move", " right", " boy", " old", " too", " does", " tell",
    " sentence", " set", " three", " want", " air", " well", " also", " play", " small", " end", " put", " home", " read",
    " hand", " port", " large", " spell", " add", " even", " land", " here", " must", " big", " high", " such", " follow",
    " act", " why", " ask", " men", " change", " went", " light", " kind", " off", " need", " house", " picture", " try",
    " us", " again", " animal", " point", " mother", " world", " near", " build", " self", " story",
    " hello", " capital",
};

#endif
