package sublink

import (
	"golang.org/x/text/language"

	"nodeagent/cmd/node-core/internal/corestore"
)

// words are the texts of the page in one language.
type words struct {
	Traffic, Of, NoLimit, Until, Never, Import, Own, Links, NoLinks, Support string
	Status                                                                   map[string]string
}

// languages are those of the page. The first one is for everybody else.
var languages = []language.Tag{language.English, language.Russian, language.Persian, language.Chinese}

var matcher = language.NewMatcher(languages)

// wordsFor returns the language that fits an Accept-Language header best, and its texts.
func wordsFor(header string) (language.Tag, words) {
	wanted, _, _ := language.ParseAcceptLanguage(header) // whatever is wrong in it means English
	_, i, _ := matcher.Match(wanted...)
	return languages[i], texts[languages[i]]
}

var texts = map[language.Tag]words{
	language.English: {
		"Traffic", "of", "no limit", "Valid until", "no end", "Open in an application",
		"Address of this subscription: applications fetch it", "Links", "There is no link now.", "Support",
		map[string]string{
			corestore.Active: "Active", corestore.OnHold: "Begins with the first use", corestore.Disabled: "Disabled",
			corestore.Limited: "The traffic is used up", corestore.Expired: "Expired",
		},
	},
	language.Russian: {
		"Трафик", "из", "без ограничения", "Действует до", "бессрочно", "Открыть в приложении",
		"Адрес подписки: его загружают приложения", "Ссылки", "Сейчас ссылок нет.", "Поддержка",
		map[string]string{
			corestore.Active: "Активна", corestore.OnHold: "Начнётся при первом подключении", corestore.Disabled: "Отключена",
			corestore.Limited: "Трафик исчерпан", corestore.Expired: "Срок истёк",
		},
	},
	language.Persian: {
		"ترافیک", "از", "نامحدود", "اعتبار تا", "بدون پایان", "باز کردن در برنامه",
		"نشانی این اشتراک: اپلیکیشن آن را دریافت خواهد کرد", "پیوندها", "اکنون لینکی نیست.", "پشتیبانی",
		map[string]string{
			corestore.Active: "فعال", corestore.OnHold: "با نخستین اتصال آغاز خواهد شد", corestore.Disabled: "غیرفعال",
			corestore.Limited: "ترافیک تمام شده است", corestore.Expired: "منقضی شده",
		},
	},
	language.Chinese: {
		"流量", "/", "不限", "有效期至", "长期", "在应用中打开",
		"订阅地址：由应用获取", "链接", "目前没有链接。", "支持",
		map[string]string{
			corestore.Active: "有效", corestore.OnHold: "首次使用后开始计时", corestore.Disabled: "已停用",
			corestore.Limited: "流量已用完", corestore.Expired: "已过期",
		},
	},
}
