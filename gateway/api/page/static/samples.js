// Sample texts, by the data-sample of their buttons.
export const SAMPLES = {
  five: {
    query: "How do I get back into my account?",
    texts: [
      "I forgot my password and cannot log in.",
      "How can I reset my login credentials?",
      "The parcel arrived two days late.",
      "My delivery has been delayed again.",
      "What a beautiful sunset over the sea!",
    ],
  },
  topics: {
    query: "something sweet to bake",
    texts: [
      "Knead the dough for ten minutes and let it rise.",
      "A pinch of salt brings out the taste of chocolate.",
      "Preheat the oven before you mix the batter.",
      "Fry the onions slowly until they are golden.",
      "Jupiter has more than ninety known moons.",
      "The telescope found water vapour around a distant star.",
      "A solar eclipse happens when the moon hides the sun.",
      "Rockets need great speed to leave Earth's gravity.",
      "The central bank raised interest rates again.",
      "Shares fell after the company missed its forecast.",
      "Inflation makes savings worth less every year.",
      "The start-up raised ten million in new funding.",
      "The goalkeeper saved a penalty in the last minute.",
      "She ran the marathon in under three hours.",
      "Our team lost the final after extra time.",
      "The swimmer broke her own world record.",
    ],
  },
  languages: {
    query: "Where is the railway station?",
    texts: [
      "Where is the nearest railway station?",
      "Wo ist der nächste Bahnhof?",
      "¿Dónde está la estación de tren más cercana?",
      "Où se trouve la gare la plus proche ?",
      "最近的火车站在哪里？",
      "一番近い駅はどこですか。",
      "أين أقرب محطة قطار؟",
      "सबसे नज़दीकी रेलवे स्टेशन कहाँ है?",
      "Где ближайший вокзал?",
      "En yakın tren istasyonu nerede?",
    ],
  },
  german: {
    query: "Wie wird das Wetter?",
    texts: [
      "Morgen soll es den ganzen Tag regnen.",
      "Für das Wochenende ist Sonne angesagt.",
      "Der Zug nach Hamburg fällt heute aus.",
      "Wegen einer Störung verspätet sich die S-Bahn.",
      "Das Brot ist noch warm aus dem Ofen.",
      "Zum Frühstück gibt es frische Brötchen.",
    ],
  },
  spanish: {
    query: "¿Qué tiempo va a hacer?",
    texts: [
      "Mañana lloverá durante todo el día.",
      "El fin de semana hará mucho sol.",
      "El tren a Sevilla ha sido cancelado.",
      "El autobús llega con retraso por una avería.",
      "El pan acaba de salir del horno.",
      "Para desayunar hay tostadas con tomate.",
    ],
  },
  chinese: {
    query: "明天天气怎么样？",
    texts: ["明天全天有雨。", "周末预计天气晴朗。", "开往上海的列车今天停运。", "地铁因故障晚点。", "面包刚刚出炉，还很热。", "早餐有豆浆和油条。"],
  },
  arabic: {
    query: "كيف سيكون الطقس غدا؟",
    texts: [
      "ستمطر غدا طوال اليوم.",
      "من المتوقع أن تكون عطلة نهاية الأسبوع مشمسة.",
      "أُلغي القطار المتجه إلى الإسكندرية اليوم.",
      "تأخرت الحافلة بسبب عطل.",
      "الخبز خرج للتو من الفرن.",
      "على الفطور خبز طازج وزيت زيتون.",
    ],
  },
};

// Two hundred short reports, for the picture of many texts: five kinds of news in turn, no two the same.
const KINDS = [
  ["The weather service expects", ["heavy rain", "strong wind", "snow", "a heat wave", "thick fog"], ["in the north", "along the coast", "in the mountains", "over the islands", "in the valleys", "near the border", "in the south", "around the lakes"]],
  ["Trains are late because of", ["a signal failure", "works on the line", "a fallen tree", "a strike", "flooded tracks"], ["before the main station", "between two suburbs", "on the coast line", "at the airport", "on the night service", "on the bridge", "in the tunnel", "near the harbour"]],
  ["The kitchen serves", ["a soup of lentils", "grilled fish", "rice with vegetables", "fresh bread", "an apple cake"], ["for lunch", "for dinner", "with herbs", "with lemon", "to forty guests", "on Sundays", "at the market", "without salt"]],
  ["Doctors advise", ["more sleep", "a flu vaccination", "daily walks", "less sugar", "regular check-ups"], ["for children", "for older people", "after an operation", "in winter", "during pregnancy", "for night workers", "after a cold", "for athletes"]],
  ["Investors buy", ["government bonds", "gold", "shares of banks", "technology stocks", "property"], ["after the vote", "as prices fall", "despite inflation", "before the report", "in a quiet market", "at record prices", "with borrowed money", "in small amounts"]],
];

function twoHundred() {
  const texts = [];
  for (let i = 0; i < 40; i++) for (const [head, things, places] of KINDS) texts.push(`${head} ${things[i % 5]} ${places[Math.floor(i / 5)]}.`);
  return texts;
}

SAMPLES.many = { query: "public transport is delayed", texts: twoHundred() };
