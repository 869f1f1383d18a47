"""Sentences in many languages, and models with the architecture of paraphrase-multilingual-MiniLM-L12-v2 made from them.

The sentences were written for this file. The tokenizer has the structure of that model's: XLM-R's Unigram over white space, special
tokens first and `<mask>` last, and truncation and padding to 128 in tokenizer.json. The network is a BERT. Its configuration has
more words than the tokenizer, and another padding id. It has mean pooling and no Normalize.
"""

import json
import random
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

FIRST, LAST = ["<s>", "<pad>", "</s>", "<unk>"], "<mask>"
READS = 128  # tokens at once, as in the model's own sentence_bert_config.json
WORDS_BEYOND = 35  # rows of the embedding table without a token: 250,037 for 250,002 tokens

SENTENCES = {
    "Arabic": [
        "أين تقع أقرب محطة قطار من هنا؟",
        "يمكنك إعادة تعيين كلمة المرور من صفحة الإعدادات.",
        "هطل المطر طوال الليل فامتلأت الأنهار بالماء.",
        "تحوّل الخوادم النصوص إلى متجهات يمكن مقارنتها.",
    ],
    "Bengali": ["আমি কীভাবে আমার পাসওয়ার্ড পরিবর্তন করব?", "আজ সকালে আকাশ পরিষ্কার ছিল, কিন্তু বিকেলে বৃষ্টি হলো।"],
    "Bulgarian": ["Къде е най-близката гара?", "Вчера валя цяла нощ и реката преля."],
    "Chinese": [
        "请问最近的火车站在哪里？",
        "您可以在设置页面重新设置密码。",
        "昨天晚上下了一整夜的雨，河水涨了很多。",
        "服务器把文字变成可以比较的向量。",
        "這家餐廳的麵條非常好吃，我們明天再來。",
    ],
    "Czech": ["Kde je nejbližší nádraží?", "Heslo můžete změnit na stránce nastavení."],
    "Danish": ["Hvor er den nærmeste togstation?", "Det regnede hele natten, så åen gik over sine bredder."],
    "Dutch": ["Waar is het dichtstbijzijnde station?", "Het wachtwoord kan op de instellingenpagina worden gewijzigd."],
    "English": [
        "Where is the nearest train station?",
        "You can reset your password on the settings page.",
        "It rained all night, and the river rose above its banks.",
        "A server turns texts into vectors that can be compared.",
    ],
    "Finnish": ["Missä on lähin rautatieasema?", "Salasanan voi vaihtaa asetussivulla."],
    "French": [
        "Où se trouve la gare la plus proche ?",
        "Vous pouvez réinitialiser votre mot de passe dans les paramètres.",
        "Il a plu toute la nuit et la rivière a débordé.",
    ],
    "German": [
        "Wo ist der nächste Bahnhof?",
        "Das Passwort lässt sich auf der Seite mit den Einstellungen zurücksetzen.",
        "Es regnete die ganze Nacht, und der Fluss trat über die Ufer.",
    ],
    "Greek": ["Πού είναι ο πλησιέστερος σταθμός τρένου;", "Έβρεχε όλη τη νύχτα και το ποτάμι ξεχείλισε."],
    "Hebrew": ["איפה תחנת הרכבת הקרובה ביותר?", "אפשר לאפס את הסיסמה בדף ההגדרות."],
    "Hindi": [
        "सबसे नज़दीकी रेलवे स्टेशन कहाँ है?",
        "आप सेटिंग पृष्ठ पर अपना पासवर्ड बदल सकते हैं।",
        "रात भर बारिश हुई और नदी का पानी बढ़ गया।",
        "सर्वर वाक्यों को ऐसे सदिशों में बदलता है जिनकी तुलना हो सकती है।",
    ],
    "Hungarian": ["Hol van a legközelebbi vasútállomás?", "Egész éjjel esett az eső, és kiöntött a folyó."],
    "Indonesian": ["Di mana stasiun kereta terdekat?", "Anda dapat mengganti kata sandi di halaman pengaturan."],
    "Italian": ["Dov'è la stazione ferroviaria più vicina?", "Ha piovuto tutta la notte e il fiume è straripato."],
    "Japanese": [
        "一番近い駅はどこですか。",
        "設定のページでパスワードを変更できます。",
        "一晩中雨が降って、川の水があふれました。",
        "サーバーは文章を比べられるベクトルに変えます。",
    ],
    "Korean": ["가장 가까운 기차역이 어디예요?", "설정 페이지에서 비밀번호를 바꿀 수 있습니다.", "밤새 비가 와서 강물이 넘쳤어요."],
    "Persian": ["نزدیک‌ترین ایستگاه قطار کجاست؟", "تمام شب باران بارید و رودخانه طغیان کرد."],
    "Polish": ["Gdzie jest najbliższy dworzec kolejowy?", "Hasło można zmienić na stronie ustawień."],
    "Portuguese": ["Onde fica a estação de trem mais próxima?", "Choveu a noite inteira e o rio transbordou."],
    "Romanian": ["Unde este cea mai apropiată gară?", "A plouat toată noaptea și râul s-a revărsat."],
    "Russian": [
        "Где находится ближайший вокзал?",
        "Пароль можно сбросить на странице настроек.",
        "Всю ночь шёл дождь, и река вышла из берегов.",
    ],
    "Spanish": ["¿Dónde está la estación de tren más cercana?", "Puede cambiar la contraseña en la página de configuración."],
    "Swedish": ["Var ligger närmaste järnvägsstation?", "Det regnade hela natten och ån svämmade över."],
    "Tamil": ["அருகிலுள்ள ரயில் நிலையம் எங்கே இருக்கிறது?", "இரவு முழுவதும் மழை பெய்தது."],
    "Thai": ["สถานีรถไฟที่ใกล้ที่สุดอยู่ที่ไหน", "คุณสามารถเปลี่ยนรหัสผ่านได้ที่หน้าการตั้งค่า"],
    "Turkish": ["En yakın tren istasyonu nerede?", "Bütün gece yağmur yağdı ve nehir taştı."],
    "Ukrainian": ["Де найближчий залізничний вокзал?", "Усю ніч ішов дощ, і річка вийшла з берегів."],
    "Urdu": ["قریب ترین ریلوے اسٹیشن کہاں ہے؟", "ساری رات بارش ہوتی رہی۔"],
    "Vietnamese": ["Ga tàu gần nhất ở đâu?", "Bạn có thể đổi mật khẩu ở trang cài đặt."],
}
EMOJI = "🙂👍🏽🇫🇷 👩‍👩‍👧 🚆🌧️"
MIXED = "Meeting um 9 Uhr 在北京 — कल मिलते हैं، إن شاء الله 🙂 ok?"


def all_sentences() -> list[str]:
    return [sentence for sentences in SENTENCES.values() for sentence in sentences]


def tokenizer(num_tokens: int | None = None) -> Tokenizer:
    """A tokenizer trained on the sentences. Unused pieces fill it up to `num_tokens`, for a vocabulary as large as the real one."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=FIRST, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator([*all_sentences(), EMOJI, MIXED], trainer)
    written = json.loads(trained.to_str())
    pieces = written["model"]["vocab"]
    if num_tokens is not None:
        pieces += made_up({piece for piece, _ in pieces}, num_tokens - len(pieces) - 1)
    pieces.append([LAST, 0.0])
    same = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = [*enumerate(FIRST), (len(pieces) - 1, LAST)]
    written["added_tokens"] = [{"id": number, "content": content, **same} for number, content in ids]
    whole = Tokenizer.from_str(json.dumps(written, ensure_ascii=False))
    whole.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    whole.enable_truncation(READS)
    whole.enable_padding(pad_id=1, pad_token="<pad>", length=READS)
    return whole


def made_up(known: set[str], num_pieces: int) -> list[list[object]]:
    """`num_pieces` random pieces of 2 to 8 characters, each of one script, less likely than every real piece."""
    chance = random.Random(5)
    alphabets = [
        sorted({char for sentence in sentences for char in sentence if char.isalpha()}) for sentences in SENTENCES.values()
    ]
    pieces: dict[str, float] = {}
    while len(pieces) < num_pieces:
        piece = chance.choice(("▁", "")) + "".join(chance.choices(chance.choice(alphabets), k=chance.randint(2, 8)))
        if piece not in known:
            pieces[piece] = -20.0 - chance.random()
    return [[piece, score] for piece, score in pieces.items()]


def made(
    folder: Path, *, width: int = 32, layers: int = 2, heads: int = 4, num_tokens: int | None = None, max_positions: int = 512
) -> Path:
    """Saves a model with random weights; returns its folder. The default is small; 384, 12, 12 and 250,002 are the real size."""
    torch.manual_seed(3)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(num_tokens), model_max_length=max_positions, bos_token="<s>", cls_token="<s>", eos_token="</s>",
        sep_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token=LAST,
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(fast) + WORDS_BEYOND, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=max_positions, pad_token_id=0, initializer_range=0.05,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "parts")
    fast.save_pretrained(folder / "parts")
    modules = [Transformer(str(folder / "parts"), max_seq_length=READS), Pooling(width, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def main() -> None:
    """Makes a small model in a folder, and prints sentence-transformers' unit vectors of the texts on standard input, as JSON."""
    folder, texts = Path(sys.argv[1]), json.load(sys.stdin)
    model = SentenceTransformer(str(made(folder)), device="cpu", local_files_only=True)
    vectors = model.encode(texts, batch_size=1, normalize_embeddings=True, show_progress_bar=False)
    lengths = [len(model.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    json.dump({"source": str(folder / "whole"), "vectors": vectors.tolist(), "num_tokens": lengths}, sys.stdout)


if __name__ == "__main__":
    main()
