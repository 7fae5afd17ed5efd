/* words.h - the words. Changing them changes token ids, and with them every synthetic block id and text in the tests. */
#ifndef SYNTHETIC_WORDS_H
#define SYNTHETIC_WORDS_H

/* Each at most 12 letters; a token's text is a space and the word. */
static const char *const english_words[] = {"the", "of", "and", "to", "a", "in", "is", "that", "it", "for", "was", "on",
    "are", "as", "with", "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "hot", "but", "some",
    "what", "there", "we", "can", "out", "other", "were", "all", "your", "when", "up", "use", "word", "how", "said",
    "an", "each", "she", "which", "do", "their", "time", "if", "will", "way", "about", "many", "then", "them", "would",
    "write", "like", "so", "these", "her", "long", "make", "thing", "see", "him", "two", "has", "look", "more", "day",
    "could", "go", "come", "did", "my", "sound", "no", "most", "number", "who", "over", "know", "water", "than", "call",
    "first", "people", "may", "down", "side", "been", "now", "find", "any", "new", "work", "part", "take", "get",
    "place", "made", "live", "where", "after", "back", "little", "only", "round", "man", "year", "came", "show",
    "every", "good", "me", "give", "our", "under", "name", "very", "through", "just", "form", "much", "great", "think",
    "say", "help", "low", "line", "before", "turn", "cause", "same", "mean", "differ", "move", "right", "boy", "old",
    "too", "does", "tell", "sentence", "set", "three", "want", "air", "well", "also", "play", "small", "end", "put",
    "home", "read", "hand", "port", "large", "spell", "add", "even", "land", "here", "must", "big", "high", "such",
    "follow", "act", "why", "ask", "men", "change", "went", "light", "kind", "off", "need", "house", "picture", "try",
    "us", "again", "animal", "point", "mother", "world", "near", "build", "self", "earth", "father", "head", "stand",
    "own", "page", "should", "country", "found", "answer", "school", "grow", "study", "still", "learn", "plant",
    "cover", "food", "sun", "four", "thought", "let", "keep", "eye", "never", "last", "door", "between", "city", "tree",
    "cross", "since", "hard", "start", "might", "story", "saw", "far", "sea", "draw", "left", "late", "run", "while",
    "press", "close", "night", "real", "life", "few", "stop", "open", "seem", "together", "next", "white", "children",
    "begin", "got", "walk", "example", "ease", "paper", "often", "always", "music", "those", "both", "mark", "book",
    "letter", "until", "mile", "river", "car", "feet", "care", "second", "group", "carry", "took", "rain", "eat",
    "room", "friend", "began", "idea", "fish", "mountain", "north", "once", "base", "hear", "horse", "cut", "sure",
    "watch", "color", "face", "wood", "main", "cache", "token", "block", "prefix", "layer", "memory", "model", "prompt",
    "worker", "store", "node", "reuse", "decode", "prefill", "request", "stream", "byte", "key", "value"};

static const char *const chinese_words[] = {"缓存", "前缀", "模型", "请求", "复用", "计算", "内存", "节点", "可以",
    "因为", "所以", "我们", "他们", "这个", "那个", "需要", "使用", "系统", "数据", "传输", "速度", "时间", "第一",
    "问题", "回答", "文字", "语言", "学习", "工作", "保存", "读取", "写入", "正确", "快速", "同样", "不同", "开始",
    "结束", "已经", "如果", "但是", "并且", "或者", "通过", "每个", "所有", "一些", "很多", "非常", "简单", "复杂",
    "方法", "结果", "过程", "部分", "整个", "之间", "之后", "之前", "现在", "以后", "世界", "朋友", "月亮"};

#endif
