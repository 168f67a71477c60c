package sublink

import (
	"time"

	"golang.org/x/text/language"

	"nodeagent/cmd/node-core/internal/corestore"
)

// words are the texts of the page in one language.
type words struct {
	Traffic, Of, NoLimit, Until, Never, Import, Own, Links, NoLinks, Support string
	Status                                                                   map[string]string
	// Left is behind bytes that are left. The other two say why a device has no links.
	Left, TooManyDevices, NoDevice string
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
		"left", "There are as many devices as this subscription allows; ask for one to be removed.", "This application does not say which device it is on, which this subscription needs; use another one.",
	},
	language.Russian: {
		"Трафик", "из", "без ограничения", "Действует до", "бессрочно", "Открыть в приложении",
		"Адрес подписки: его загружают приложения", "Ссылки", "Сейчас ссылок нет.", "Поддержка",
		map[string]string{
			corestore.Active: "Активна", corestore.OnHold: "Начнётся при первом подключении", corestore.Disabled: "Отключена",
			corestore.Limited: "Трафик исчерпан", corestore.Expired: "Срок истёк",
		},
		"осталось", "Достигнут предел устройств этой подписки; попросите удалить одно из них.", "Это приложение не сообщает, на каком оно устройстве, а подписке это нужно; возьмите другое приложение.",
	},
	language.Persian: {
		"ترافیک", "از", "نامحدود", "اعتبار تا", "بدون پایان", "باز کردن در برنامه",
		"نشانی این اشتراک: اپلیکیشن آن را دریافت خواهد کرد", "پیوندها", "اکنون لینکی نیست.", "پشتیبانی",
		map[string]string{
			corestore.Active: "فعال", corestore.OnHold: "با نخستین اتصال آغاز خواهد شد", corestore.Disabled: "غیرفعال",
			corestore.Limited: "ترافیک تمام شده است", corestore.Expired: "منقضی شده",
		},
		"باقی مانده", "شمار دستگاه این اشتراک به حد مجاز رسیده است؛ بخواهید یک دستگاه حذف شود.", "این برنامه شناسه دستگاه را اعلام نکرده است و این اشتراک به آن نیاز دارد؛ از برنامه دیگری استفاده کنید.",
	},
	language.Chinese: {
		"流量", "/", "不限", "有效期至", "长期", "在应用中打开",
		"订阅地址：由应用获取", "链接", "目前没有链接。", "支持",
		map[string]string{
			corestore.Active: "有效", corestore.OnHold: "首次使用后开始计时", corestore.Disabled: "已停用",
			corestore.Limited: "流量已用完", corestore.Expired: "已过期",
		},
		"剩余", "此订阅的设备数已达上限；请联系管理员移除一台设备。", "此应用未提供设备标识，而此订阅需要它；请换用其他应用。",
	},
}

const (
	// nearEnd is how long before its end a subscription is told so.
	nearEnd = 3 * 24 * time.Hour
	// nearLimit is the part of the limit, one tenth, that is left when a subscription is told so.
	nearLimit = 10
)

// notice is what an application shows of a subscription that lets nobody in, or soon will not; empty
// for any other.
func (w words) notice(sub corestore.Subscription, now time.Time) string {
	most, rest := limit(sub), left(sub)
	switch {
	case !sub.Served():
		return w.Status[sub.Status]
	case sub.ExpiresAt != nil && sub.ExpiresAt.Sub(now) < nearEnd:
		return w.Until + " " + sub.ExpiresAt.UTC().Format(timeForm)
	case most > 0 && rest <= most/nearLimit:
		return w.Traffic + ": " + w.Left + " " + size(rest)
	}
	return ""
}

// timeForm is how times are shown.
const timeForm = "2006-01-02 15:04 MST"
