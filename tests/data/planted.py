"""Exam questions in six scripts and of three languages with accents, copies as they turn up, and clean rows.

Usage: `for question in exam("thai"): ...`; `CHANGES["soft hyphens"](question)`; `clean("thai")`.

Questions and clean rows fill one template with the same words, but never with the same pair of them.
"""

# ruff: noqa: RUF001 - Turkish and Greek are written in letters that look like others.
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

_LISTS = {
    "latin": (
        "Which medicine is given first to a patient with {x} and {y} when the {z} is normal?",
        "asthma diabetes gout anaemia migraine epilepsy hypertension arthritis",
        "pulse weight temperature creatinine potassium sodium haemoglobin glucose",
    ),
    "devanagari": (
        "{x} और {y} वाले रोगी को {z} सामान्य होने पर सबसे पहले कौन सी दवा दी जाती है?",
        "दमा मधुमेह गठिया रक्ताल्पता मिर्गी उच्चरक्तचाप क्षयरोग पीलिया",
        "नाड़ी वज़न तापमान क्रिएटिनिन पोटैशियम सोडियम हीमोग्लोबिन ग्लूकोज़",
    ),
    "arabic": (
        "ما الدواء الذي يعطى أولا لمريض يعاني من {x} و{y} عندما يكون {z} ضمن الحدود الطبيعية؟",
        "الربو السكري النقرس الأنيميا الصداع الصرع الضغط السل",
        "النبض الوزن التنفس الكرياتينين البوتاسيوم الصوديوم الهيموغلوبين الغلوكوز",
    ),
    "cyrillic": (
        "Какое лекарство сначала назначают больному, которого беспокоят {x} и {y}, если {z} остаётся в пределах нормы?",
        "астма диабет подагра анемия мигрень эпилепсия гипертония артрит",
        "пульс вес температура креатинин калий натрий гемоглобин глюкоза",
    ),
    "han": (
        "对于患有{x}和{y}的病人, 在{z}正常时, 医生首先选择哪一种药物治疗?",
        "哮喘 糖尿病 痛风 贫血 偏头痛 癫痫 高血压 关节炎",
        "脉搏 体重 体温 肌酐 血钾 血钠 血红蛋白 血糖",
    ),
    "thai": (
        "ผู้ป่วยที่เป็น{x}และ{y}ควรได้รับยาชนิดใดก่อน เมื่อค่า{z}อยู่ในเกณฑ์ปกติ?",
        "โรคหืด เบาหวาน เกาต์ โลหิตจาง ไมเกรน ลมชัก ความดันสูง วัณโรค",
        "ชีพจร น้ำหนัก อุณหภูมิ ครีเอตินิน โพแทสเซียม โซเดียม ฮีโมโกลบิน น้ำตาล",
    ),
    "turkish": (
        "İstanbul Boğazı kıyısında {x} ve {y} şikayetiyle gelen hastada {z} normalse ilk hangi ilaç verilir?",
        "astım diyabet gut anemi migren epilepsi hipertansiyon artrit",
        "nabız ağırlık ısı kreatinin potasyum sodyum hemoglobin glikoz",
    ),
    "greek": (
        "Ποιο φάρμακο δίνεται πρώτο σε έναν ασθενή με {x} και {y} όταν η τιμή για {z} είναι φυσιολογική;",
        "άσθμα διαβήτη αρθρίτιδα αναιμία ημικρανία επιληψία υπέρταση βρογχίτιδα",
        "σφυγμό βάρος θερμοκρασία κρεατινίνη κάλιο νάτριο αιμοσφαιρίνη γλυκόζη",
    ),
    "vietnamese": (
        "Thuốc nào được dùng đầu tiên cho người bệnh bị {x} và {y} khi chỉ số {z} vẫn bình thường?",
        "hen gút lao sởi cúm phong suyễn dại",
        "mạch cân nhiệt kali natri đường sắt đạm",
    ),
}  # fmt: skip
SCRIPTS = tuple(_LISTS)
AROUND = {
    "latin": ("Notes from a ward round. ", " The answer is in the next chapter."),
    "devanagari": ("अस्पताल की टिप्पणी। ", " उत्तर अगले अध्याय में है।"),
    "arabic": ("ملاحظات من المستشفى. ", " الجواب في الفصل التالي."),
    "cyrillic": ("Заметки из больницы. ", " Ответ в следующей главе."),
    "han": ("医院笔记。", "答案在下一章。"),
    "turkish": ("Hastaneden notlar. ", " Cevap sonraki bölümde."),
    "greek": ("Σημειώσεις από το νοσοκομείο. ", " Η απάντηση είναι στο επόμενο κεφάλαιο."),
    "vietnamese": ("Ghi chép từ bệnh viện. ", " Câu trả lời ở chương sau."),
    "thai": ("บันทึกจากโรงพยาบาล ", " คำตอบอยู่ในบทถัดไป"),
}


def _filled(script: str, odd: int) -> Iterator[str]:
    template, *lists = _LISTS[script]
    illnesses, measures = (words.split() for words in lists)
    for place, first in enumerate(illnesses):
        for other, second in enumerate(illnesses):
            if place != other and (place + other) % 2 == odd:
                yield template.format(x=first, y=second, z=measures[(place + other) % 8])


def exam(script: str) -> list[str]:
    """Return the questions of an exam, 24 of them."""
    return list(_filled(script, 0))


def clean(script: str) -> list[str]:
    """Return rows that share the template and the words with the exam and no question, 64 of them."""
    before, after = AROUND[script]
    return [text for sentence in _filled(script, 1) for text in (sentence, before + sentence + after)]


def _within(text: str, sign: str, every: int) -> str:
    """Put a sign between the letters of words, never before a mark nor at the edge of a word."""
    made = ""
    for place, (before, letter) in enumerate(zip(" " + text, text, strict=False)):
        letters = before.isalnum() or unicodedata.category(before)[0] == "M"
        made += sign if place % every == 0 and letters and letter.isalnum() else ""
        made += letter
    return made


def _full_width(text: str) -> str:
    return "".join(
        chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else "\u3000" if sign == " " else sign for sign in text
    )


def _pointed(text: str) -> str:
    """Give Arabic letters a vowel point and some a tatweel, and Russian vowels a stress."""
    return re.sub("([\u0628-\u064a])", "\\1\u064e", re.sub("([\u0628\u062a\u0645\u0644])", "\\1\u0640", text)).replace(
        "\u0430", "\u0430\u0301"
    )


def _unaccented(text: str) -> str:
    """Take the accents off Latin and Greek letters."""
    bare = re.sub("([A-Za-z\u0370-\u03ff])[\u0300-\u036f]+", "\\1", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", bare).replace("\u0111", "d").replace("\u0131", "i")


CHANGES: dict[str, Callable[[str], str]] = {
    "exact": str,
    "spaced": lambda text: text.replace(" ", " \n  "),
    "hyphenated at line ends": lambda text: _within(text, "-\n", 5) if " " in text[:24] else _within(text, "\n", 7),
    "hyphenated, lines joined": lambda text: _within(text, "- ", 5) if " " in text[:24] else _within(text, " ", 7),
    "hyphens within words": lambda text: _within(text, "-", 5) if " " in text[:24] else text,
    "upper case": str.upper,
    "lower case": str.lower,
    "without accents": _unaccented,
    "capitals without accents": lambda text: _unaccented(text).upper(),
    "with an emoji": lambda text: text.replace(" ", " \U0001f600 ", 3),
    "tags": lambda text: "<p>" + _within(text.replace(" ", "<br/> "), "<b class='x'>", 4) + "</p>",
    "entities": lambda text: text.encode("ascii", "xmlcharrefreplace").decode().replace(" ", "&nbsp;"),
    "soft hyphens": lambda text: _within(text, "\u00ad", 3),
    "zero-width spaces": lambda text: _within(text, "\u200b", 2),
    "marks of direction": lambda text: "\u202b" + text.replace(" ", " \u200f") + "\u202c",
    "full width": _full_width,
    "punctuated otherwise": lambda text: (
        "\u00ab" + re.sub(r"[,?\u061f]", " \u2026 ", text).replace(" ", "_ ") + "\u00bb!"
    ),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "pointed": _pointed,
}
